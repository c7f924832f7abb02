# SPDX-License-Identifier: MIT
"""What LockedBuffer costs beside bytearray, libsodium's sodium_malloc and PyPI's zeroize, measured side by side.

`python -m mlockwipe_lab.bench.host.library_costs`; libsodium and zeroize are left out where they are not installed.
"""

import ctypes
import errno
import hashlib
import hmac
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from mlockwipe import LockedBuffer
from mlockwipe.linux import mm, procfs
from mlockwipe.locked.pool import POOL
from mlockwipe_lab.bench.host import limits
from mlockwipe_lab.bench.host.facts import facts
from mlockwipe_lab.bench.host.sampling import Rounds, Times

_ROUNDS = 15
_SECONDS = 0.004  # for one sample, about
_SIZES = (32, 4096, 65536)
_MANY = 1000  # secrets at a time

Work = Callable[[], object]


class ByteArray:
    """Unprotected: what the others are measured against."""

    def make(self, size: int) -> Any:
        return bytearray(size)

    def free(self, secret: Any) -> None:
        pass

    def equal(self, one: Any, other: Any) -> object:
        return hmac.compare_digest(one, other)


class Locked(ByteArray):
    def make(self, size: int) -> Any:
        return LockedBuffer(size)

    def free(self, secret: Any) -> None:
        secret.release()

    def equal(self, one: Any, other: Any) -> object:
        return one == other


class Mlocked(Locked):
    """The same without memfd_secret."""


class Sodium(ByteArray):
    """sodium_malloc by way of ctypes, and an array over what it returns."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libsodium.so.23")
        self._library.sodium_init()
        self._malloc, self._free, self._memcmp = (
            getattr(self._library, f"sodium_{name}") for name in ("malloc", "free", "memcmp")
        )
        self._malloc.restype, self._malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self._free.restype, self._free.argtypes = None, [ctypes.c_void_p]
        self._memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

    def make(self, size: int) -> Any:
        address = self._malloc(size)
        if not address:
            raise OSError(errno.ENOMEM, "sodium_malloc")
        return (ctypes.c_ubyte * size).from_address(address)

    def free(self, secret: Any) -> None:
        self._free(ctypes.addressof(secret))

    def equal(self, one: Any, other: Any) -> object:
        return self._memcmp(ctypes.addressof(one), ctypes.addressof(other), len(one))


class Zeroize(ByteArray):
    """A bytearray that zeroize locks, and clears and unlocks in the end."""

    def __init__(self) -> None:
        self._library = import_module("zeroize")

    def make(self, size: int) -> Any:
        secret = bytearray(size)
        self._library.mlock(secret)
        return secret

    def free(self, secret: Any) -> None:
        self._library.zeroize1(secret)
        self._library.munlock(secret)


def contenders() -> dict[str, ByteArray]:
    found: dict[str, ByteArray] = {"bytearray": ByteArray(), "LockedBuffer": Locked()}
    if _has_memfd_secret():
        found["LockedBuffer, mlock"] = Mlocked()
    for name, kind in (("sodium_malloc", Sodium), ("zeroize", Zeroize)):
        try:
            found[name] = kind()
        except (ImportError, OSError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def measure(contender: ByteArray) -> Times:
    """Nanoseconds for one time of each work."""
    _use_memfd_secret(not isinstance(contender, Mlocked))
    times: Times = {}
    for size in _SIZES:

        def life(size: int = size) -> None:
            contender.free(contender.make(size))

        times[f"life-{size}"] = [_time_of(life)]
    keep = contender.make(32)  # the page stays, as in a program that has secrets at all
    times["life-32-beside"] = [_time_of(lambda: contender.free(contender.make(32)))]
    secret, other = contender.make(32), contender.make(32)
    content = bytes(range(32))
    times["write"] = [_time_of(lambda: secret.__setitem__(slice(None), content))]
    times["index"] = [_time_of(lambda: secret[7])]
    times["sha256"] = [_time_of(lambda: hashlib.sha256(secret))]
    times["equal"] = [_time_of(lambda: contender.equal(secret, other))]
    for each in (secret, other, keep):
        contender.free(each)
    return times


def locked_by_many(contender: ByteArray) -> int:
    """Bytes of locked memory for a thousand secrets of 32 bytes."""
    _use_memfd_secret(not isinstance(contender, Mlocked))
    before = _locked()
    secrets = [contender.make(32) for _ in range(_MANY)]
    locked = _locked() - before
    for secret in secrets:
        contender.free(secret)
    return locked


def _time_of(work: Work) -> float:
    work()
    count = 1
    while True:
        start = time.perf_counter_ns()
        for _ in range(count):
            work()
        taken = time.perf_counter_ns() - start
        if taken >= _SECONDS * 1e9:
            return taken / count
        count = max(count * 2, round(count * _SECONDS * 1e9 / taken))


def _locked() -> int:
    return int(procfs.status_field(os.getpid(), "VmLck").split()[0]) * 1024


_memfd_secret = mm.memfd_secret


def _has_memfd_secret() -> bool:
    try:
        os.close(_memfd_secret(os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _no_memfd_secret(flags: int = 0) -> NoReturn:
    raise OSError(errno.ENOSYS, "switched off for comparison")


def _use_memfd_secret(use: bool) -> None:
    POOL.lose_in_child()  # begin anew: no page of the other kind is left over
    mm.memfd_secret = _memfd_secret if use else _no_memfd_secret


_WHAT = {
    "life-32-beside": "make and release 32 bytes, with others about",
    "life-32": "make and release 32 bytes, the only ones",
    "life-4096": "make and release 4096 bytes",
    "life-65536": "make and release 65536 bytes",
    "write": "write 32 bytes, secret[:] = ...",
    "index": "read one byte, secret[7]",
    "sha256": "hashlib.sha256 of 32 bytes",
    "equal": "compare 32 bytes in constant time",
}


def print_table(console: Console, rounds: Rounds, names: list[str], locked: Mapping[str, int]) -> None:
    table = Table(title="Costs of LockedBuffer, in ns and as ratios to a bytearray")
    table.add_column("what")
    for name in names:
        table.add_column(name, justify="right")
    for key, what in _WHAT.items():
        medians = rounds.medians(key)
        ratios = {name: median(rounds.ratio(name, "bytearray", key)) for name in names}
        table.add_row(what, *(f"{medians[name]:.0f} ({ratios[name]:.1f}x)" for name in names))
    table.add_row(
        f"memory locked for {_MANY} secrets of 32 bytes", *(f"{locked[name] // 1024} KiB" for name in names)
    )
    console.print(table)
    machine = facts()
    console.print(
        f"Linux {machine['kernel']}, {machine['cpus']} CPUs ({machine['cpu']}), Python {machine['python']}; "
        f"medians of {_ROUNDS} interleaved rounds."
    )


def main() -> None:
    limits.raise_memlock()
    found = contenders()
    rounds = Rounds.interleave({name: partial(measure, contender) for name, contender in found.items()}, _ROUNDS)
    locked = {name: locked_by_many(contender) for name, contender in found.items()}
    print_table(Console(width=None if sys.stdout.isatty() else 160), rounds, list(found), locked)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""The two filters and `decode` see a call as the kernel does: of an int they look at the lower half alone."""

import itertools
import random

import pytest

from mlockwipe.linux import mman
from mlockwipe.linux.arch.x86_64 import I386, X32_SYSCALL_BIT, X86_64, Abi
from mlockwipe.linux.libseccomp import RET_ALLOW, RET_TRACE, RET_USER_NOTIF
from mlockwipe.linux.prctl import PR_SET_DUMPABLE, PR_SET_MM
from mlockwipe.linux.seccomp_filter import FLAG_NEW_LISTENER, SET_MODE_FILTER
from mlockwipe.linux.shm import IPC_SHMAT, SHM_REMAP
from mlockwipe.linux.userfaultfd import MOVE
from mlockwipe.memory.calls import decode
from mlockwipe.memory.filters import OWN_PRCTL, RELEASING_ADVICE, filter_one, filter_two
from tests.support.bpf import verdict

AT, SIZE = 0x7F00_0000_0000, 4096
RUBBISH = 0xDEAD_BEEF << 32
FILTERS = {RET_USER_NOTIF: filter_one(), RET_TRACE: filter_two(unmap=True)}

# Calls that are to be reported: the values of their arguments, and which of these are 32 bits wide, as SYSCALL_DEFINE
# has them in Linux 6.18.
SEEN: list[tuple[int, str, tuple[int, ...], tuple[int, ...]]] = [
    (RET_USER_NOTIF, "mlock", (AT, SIZE), ()),
    (RET_USER_NOTIF, "mlock2", (AT, SIZE, mman.MLOCK_ONFAULT), (2,)),
    (RET_USER_NOTIF, "mlockall", (mman.MCL_FUTURE,), (0,)),
    (RET_USER_NOTIF, "prctl", (PR_SET_DUMPABLE, 0), (0,)),
    (RET_USER_NOTIF, "seccomp", (SET_MODE_FILTER, FLAG_NEW_LISTENER, AT), (0, 1)),
    (RET_USER_NOTIF, "mmap", (AT, SIZE, 3, mman.MAP_LOCKED | mman.MAP_PRIVATE), ()),
    (RET_TRACE, "mmap", (AT, SIZE, 3, mman.MAP_FIXED | mman.MAP_PRIVATE), ()),
    (RET_TRACE, "munmap", (AT, SIZE), ()),
    (RET_TRACE, "mremap", (AT, SIZE, SIZE, mman.MREMAP_MAYMOVE), ()),
    (RET_TRACE, "brk", (AT,), ()),
    (RET_TRACE, "shmat", (1, AT, SHM_REMAP), (0, 2)),
    (RET_TRACE, "process_madvise", (3, AT, 1, mman.MADV_DONTNEED_LOCKED), (0, 3)),
    (RET_TRACE, "ioctl", (3, MOVE, AT), (1,)),
    (RET_TRACE, "prctl", (PR_SET_MM, 7, AT), (0,)),
    (RET_TRACE, "munlock", (AT, SIZE), ()),
    (RET_TRACE, "munlockall", (), ()),
    (RET_TRACE, "clone", (mman.CLONE_UNTRACED | mman.CLONE_VM,), ()),
    (RET_TRACE, "clone3", (AT, 88), ()),
    *((RET_TRACE, "madvise", (AT, SIZE, advice), (2,)) for advice in RELEASING_ADVICE),
]
ABIS = {"x86-64": (X86_64, 0), "x32": (X86_64, X32_SYSCALL_BIT), "i386": (I386, 0)}
abis = pytest.mark.parametrize(("abi", "bit"), ABIS.values(), ids=ABIS)


def padded(arguments: tuple[int, ...]) -> tuple[int, ...]:
    return (*arguments, *(0,) * (6 - len(arguments)))


@abis
@pytest.mark.parametrize(("action", "name", "arguments", "ints"), SEEN)
def test_rubbish_in_the_upper_half_of_an_int_hides_no_call(
    action: int, name: str, arguments: tuple[int, ...], ints: tuple[int, ...], abi: Abi, bit: int
) -> None:
    number = abi.numbers["x32_ioctl" if bit and name == "ioctl" else name] | bit
    clean = padded(arguments)
    narrow = range(6) if abi.word == 4 else ints  # i386 has 32 bits of every register
    for rubbish in itertools.product((0, RUBBISH), repeat=len(narrow)):
        dirty = list(clean)
        for index, more in zip(narrow, rubbish, strict=True):
            dirty[index] |= more
        assert verdict(FILTERS[action], abi.audit_arch, number, tuple(dirty)) == action
        if name != "clone3":
            decoded = decode(abi.audit_arch, number, tuple(dirty), -1)
            assert decoded.arguments == decode(abi.audit_arch, number, clean, -1).arguments


@abis
def test_calls_that_are_none_of_our_business_are_not_stopped(abi: Abi, bit: int) -> None:
    innocent = [
        ("prctl", (PR_SET_DUMPABLE, 1)),
        ("prctl", (15, 0)),
        ("prctl", (PR_SET_DUMPABLE, 0, OWN_PRCTL)),
        ("seccomp", (SET_MODE_FILTER, 0, AT)),
        ("mmap", (AT, SIZE, 3, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)),
        ("madvise", (AT, SIZE, 3)),
        ("clone", (mman.CLONE_VM,)),
        ("ioctl", (3, MOVE ^ 1, AT)),
        ("read", (0, AT, SIZE)),
    ]
    for (name, arguments), program in itertools.product(innocent, FILTERS.values()):
        assert verdict(program, abi.audit_arch, abi.numbers[name] | bit, padded(arguments)) == RET_ALLOW


def test_what_prctl_takes_as_a_long_counts_as_a_whole() -> None:
    """PR_SET_DUMPABLE with a second argument that is not 0 in its upper half alone is refused by the kernel."""
    arguments = padded((PR_SET_DUMPABLE, RUBBISH))
    assert verdict(FILTERS[RET_USER_NOTIF], X86_64.audit_arch, X86_64.numbers["prctl"], arguments) == RET_ALLOW


@pytest.mark.parametrize("version", [0, 1, 2, 0x7FFF])
def test_i386s_ipc_is_seen_whatever_version_it_names(version: int) -> None:
    arguments = (version << 16 | IPC_SHMAT, 1, SHM_REMAP, 0, 0x10000, 0)
    number = I386.numbers["ipc"]
    assert verdict(FILTERS[RET_TRACE], I386.audit_arch, number, arguments) == RET_TRACE
    assert decode(I386.audit_arch, number, arguments, -1).name == "shmat"
    assert verdict(FILTERS[RET_TRACE], I386.audit_arch, number, (IPC_SHMAT + 1, *arguments[1:])) == RET_ALLOW


def test_a_filter_and_the_decoder_agree_on_random_registers() -> None:
    """Whatever `decode` would take for a releasing madvise is stopped, and nothing else is."""
    chance = random.Random(6)
    number = X86_64.numbers["madvise"]
    for _ in range(2000):
        advice = chance.choice((0, 1 << 32, chance.getrandbits(64) & ~0xFFFFFFFF)) | chance.randrange(30)
        arguments = padded((AT, SIZE, advice))
        stopped = verdict(FILTERS[RET_TRACE], X86_64.audit_arch, number, arguments) == RET_TRACE
        assert stopped == (decode(X86_64.audit_arch, number, arguments, -1).arguments[2] in RELEASING_ADVICE)

# SPDX-License-Identifier: MIT
"""Guests that fail: what their kernel says on its console, and when they are booted again."""

import math
import re
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BOOTS_AGAIN = 3  # times, when it was the emulation that failed
BOOT_SILENCE = 120.0  # seconds without a word on the console: nothing in a boot takes that long

_FAULT = re.compile(r"cut here|BUG:|Oops|Kernel panic|general protection|Call Trace|\[#\d+\]|^\[[ \d.]+\] WARNING:")
_LATE_BREAKPOINT = re.compile(r"(Oops: |\] )int3: 0000")
_KERNEL_SPEAKS = re.compile(r"^\[ *\d+\.\d+\] ", re.MULTILINE)
_INIT = " as init process"  # init/main.c: run_init_process


class GuestFailed(Exception):
    """The guest did not come up, hangs, or is gone. `console`: what its kernel said at last."""

    def __init__(self, what: str, console: str) -> None:
        super().__init__(what, console)  # both, or it can't be pickled
        self.console = console

    def __str__(self) -> str:
        return str(self.args[0])


def boot_again(boot: Callable[[int], T], deadline: float = math.inf) -> T:
    """What `boot` returns, which is given the number of the boot; booted again when it was the emulation that failed,
    but not after the `deadline`. Raises what `boot` raises.
    """
    for boots in range(1, BOOTS_AGAIN + 1):
        try:
            return boot(boots)
        except GuestFailed as failed:
            if not emulator_failed(failed.console) or time.monotonic() > deadline:
                raise
    return boot(BOOTS_AGAIN + 1)


def fault(console: str) -> str | None:
    """The first complaint: an oops, a warning, lockdep's or KASAN's, a task that hangs, a panic. None without one."""
    return next((line.strip() for line in console.splitlines() if _FAULT.search(line)), None)


def emulator_failed(console: str) -> bool:
    """Whether the machine died of its emulation while it booted, and may be booted again.

    While a kernel patches its own text (jump labels, ftrace) an int3 stands there for a moment. With two processors
    QEMU's emulation lets one of them take it when it is gone already, and the kernel knows no reason for it: now and
    then in sched_clock_cpu (QEMU 7.2, Linux 6.12.117). Once in some thousand boots a kernel just stops, before it has
    an init and without a word (Linux 6.1.192); one that does so every time is told from that by being booted again.
    tests/lab/test_trouble.py has such consoles.
    """
    return _LATE_BREAKPOINT.search(console) is not None or _stopped_early(console)


def _stopped_early(console: str) -> bool:
    return _KERNEL_SPEAKS.search(console) is not None and not has_init(console) and fault(console) is None


def has_init(console: str) -> bool:
    """Whether the kernel has started process 1."""
    return _INIT in console

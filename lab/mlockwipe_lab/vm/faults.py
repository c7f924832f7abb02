# SPDX-License-Identifier: MIT
"""What a kernel says on its console when something is wrong with it."""

import re

BOOTS_AGAIN = 3  # times, when it was the emulation that failed

_FAULT = re.compile(r"cut here|BUG:|Oops|Kernel panic|general protection|Call Trace|\[#\d+\]|^\[[ \d.]+\] WARNING:")
_LATE_BREAKPOINT = re.compile(r"(Oops: |\] )int3: 0000")
_KERNEL_SPEAKS = re.compile(r"^\[ *\d+\.\d+\] ", re.MULTILINE)
_INIT = " as init process"  # init/main.c: run_init_process


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
    return _KERNEL_SPEAKS.search(console) is not None and _INIT not in console and fault(console) is None

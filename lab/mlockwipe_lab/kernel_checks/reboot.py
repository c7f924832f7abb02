# SPDX-License-Identifier: MIT
"""A machine whose process 1 has locked its memory and reboots it: does it get there without a complaint?"""

import re
from collections.abc import Sequence
from pathlib import Path

from mlockwipe_lab.vm.alone import run_alone
from mlockwipe_lab.vm.failures import GuestFailed, fault
from mlockwipe_lab.vm.kernels import Kernel

TIMEOUT = 300.0  # seconds: always emulated, for it takes one boot and no more

_MACHINE = ("-accel", "tcg", "-m", "256M", "-smp", "2")
_LOCKED = re.compile(r"^process 1 has locked [1-9]\d* kB: ", re.MULTILINE)
_REBOOTS = "reboot: Restarting system"  # kernel/reboot.c: kernel_restart


def reboot(
    kernel: Kernel,
    init: Path,
    arguments: Sequence[str] = (),
    *,
    append: Sequence[str] = (),
    timeout: float = TIMEOUT,
) -> str:
    """Boot `kernel` with `init`, a static program, as process 1: what it said, when it rebooted without a complaint.

    `init` says 'process 1 has locked N kB: ' and reboots the machine. `append`: more of the kernel's command
    line. Raises Refused and GuestFailed.
    """
    # A panic reboots too, and at once: it is told from what is asked for by what the console says.
    words = ["console=ttyS0", "panic=-1", *append, "--", *arguments]
    return run_alone(
        kernel, {"init": init.read_bytes()}, words, _without_complaint, options=_MACHINE, timeout=timeout
    )


def _without_complaint(console: str) -> str:
    if wrong := complaint(console):
        raise GuestFailed(wrong, console)
    return console


def complaint(console: str) -> str | None:
    """What is wrong with a machine that has said this and ended; None when it rebooted and had no complaint."""
    if said := fault(console):
        return f"the kernel says: {said}"
    locked = _LOCKED.search(console)
    if locked is None:
        return "process 1 has not locked its memory"
    if _REBOOTS not in console[locked.end() :]:
        return "it ended without a reboot"
    return None

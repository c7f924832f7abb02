# SPDX-License-Identifier: MIT
"""Tasks that a traced program has just made: whether they share its memory, and whether they are its own at all."""

import contextlib
import os
import signal

from mlockwipe.linux import kcmp, procfs, ptrace
from mlockwipe.linux.arch.x86_64 import I386, X86_64
from mlockwipe.supervisor.task import Task

_CLONE_VM = 0x100
_VFORK = {False: 58, True: 190}
_FORK = {False: 57, True: 2}
_ALL_BLOCKED = (1 << 64) - 1 & ~(1 << signal.SIGKILL - 1) & ~(1 << signal.SIGSTOP - 1)


def share_memory(child: int, maker: Task, event: int) -> bool:
    """Whether a new task uses its maker's memory. `event`: the one that the maker is stopped at.

    The kernel tells an ordinary user nothing of an undumpable process, gpg-agent say, and then the call that made the
    task is asked. Taken for a fork, the exec of a vfork child would have its parent's memory wiped.
    """
    keeper = maker.space.keeper
    with contextlib.suppress(OSError):
        return kcmp.same_address_space(child, keeper.pid if keeper else maker.tid)
    try:
        registers = ptrace.get_registers(maker.tid)
    except ProcessLookupError:  # killed in the stop
        return event == ptrace.EVENT_VFORK
    compat = registers.is_compat
    abi = I386 if compat else X86_64
    if registers.orig_rax in (_FORK[compat], _VFORK[compat]):
        return registers.orig_rax == _VFORK[compat]
    argument = getattr(registers, abi.arguments[0])
    if registers.orig_rax == abi.numbers["clone"]:
        return bool(argument & _CLONE_VM)
    with contextlib.suppress(OSError):  # struct clone_args begins with 64 bits of flags
        return bool(int.from_bytes(os.pread(maker.space.memory_fd, 8, argument), "little") & _CLONE_VM)
    return event == ptrace.EVENT_VFORK


def is_helper(tid: int) -> bool:
    """Whether a newborn was cloned for a keeper: with all signals blocked, and to send none at its end."""
    return ptrace.get_signal_mask(tid) == _ALL_BLOCKED and procfs.stat_fields(tid)[35] == "0"

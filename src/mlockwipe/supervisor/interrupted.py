# SPDX-License-Identifier: MIT
"""Calls that return EINTR though no handler of the program has run.

A stop of ours interrupts them. So does a signal that the program ignores, SIGCHLD mostly: the kernel drops it at once
for others, but brings it to a task that is traced (sig_ignored in kernel/signal.c), which wakes it.
"""

import errno

from mlockwipe.linux import ptrace
from mlockwipe.linux.arch.x86_64 import Registers

_ERESTARTNOHAND = 514
# Calls that return EINTR after any stop, even without a handler (signal(7)): semop, rt_sigtimedwait, io_getevents,
# semtimedop, epoll_wait, epoll_pwait, io_pgetevents, io_uring_enter, epoll_pwait2; of i386 the first two epoll ones.
_EINTR_CALLS = {False: frozenset((65, 128, 208, 220, 232, 281, 333, 426, 441)), True: frozenset((256, 319))}


def restart_interrupted_call(tid: int) -> None:
    """Have the call that a task has been stopped in begin anew when it goes on, if it would return EINTR."""
    registers = ptrace.get_registers(tid)
    if made_to_restart(registers):
        ptrace.set_registers(tid, registers)


def made_to_restart(registers: Registers) -> bool:
    """The same, on the registers of a stopped task: whether they were changed.

    If a handler does run at this return to user space, the kernel turns it into EINTR again. A timeout begins anew.
    """
    interrupted = registers.result == -errno.EINTR and registers.orig_rax in _EINTR_CALLS[registers.is_compat]
    if interrupted:
        registers.rax = (1 << 64) - _ERESTARTNOHAND
    return interrupted

# SPDX-License-Identifier: MIT
"""Calls that return EINTR though no handler of the program has run.

A stop of ours interrupts them. So does a signal that the program ignores, SIGCHLD mostly: the kernel drops it at once
for others, but brings it to a task that is traced (sig_ignored in kernel/signal.c), which wakes it.
"""

import errno

from mlockwipe.linux import ptrace
from mlockwipe.linux.arch import Registers

_ERESTARTSYS, ERESTARTNOINTR, _ERESTARTNOHAND = 512, 513, 514  # include/linux/errno.h
_NOTIFIED = frozenset(("mlock", "mlock2", "mlockall", "mmap", "old_mmap", "prctl", "seccomp"))


def restart_interrupted_call(tid: int) -> None:
    """Have the call that a task has been stopped in begin anew when it goes on, if it would return EINTR."""
    registers = ptrace.get_registers(tid)
    if made_to_restart(registers):
        ptrace.set_registers(tid, registers)


def made_to_restart(registers: Registers) -> bool:
    """The same, on the registers of a stopped task: whether they were changed.

    If a handler does run at this return to user space, the kernel turns it into EINTR again. A timeout begins anew.
    """
    interrupted = registers.result == -errno.EINTR and registers.number in registers.abi.end_by_eintr
    if interrupted:
        registers.set_result(-_ERESTARTNOHAND)
    return interrupted


def restart_notified_call(tid: int) -> None:
    """As `restart_interrupted_call`, and keep a signal from turning a lock into EINTR.

    A notified call that nobody has received yet is interrupted by any signal and would be restarted only under
    SA_RESTART (85 of 2000 calls under a 300 us timer, Linux 6.18); mlock(2) knows no EINTR.
    """
    registers = ptrace.get_registers(tid)
    notified = registers.result == -_ERESTARTSYS and _is_notified(registers)
    if notified:
        registers.set_result(-ERESTARTNOINTR)
    if notified or made_to_restart(registers):
        ptrace.set_registers(tid, registers)


def _is_notified(registers: Registers) -> bool:
    try:
        return registers.abi.name(registers.number) in _NOTIFIED
    except KeyError:
        return False

# SPDX-License-Identifier: MIT
"""Calls that end early though no handler of the program runs, and that go on instead.

A stop of ours interrupts them. So does a signal that the program ignores, SIGCHLD mostly: the kernel drops it at once
for others, but brings it to a task that is traced (sig_ignored in kernel/signal.c), which wakes it. Such a call is
made again, by the kernel's own restart. The arguments for what is left are put into the registers at its entry, and
the program's are put back at its exit: no handler and no code of the program ever sees others than its own.

Each time it begins with its full timeout; but when so much has passed since the first interruption, it is made to
return that the time is up. When it was called for the first time, nobody knows who was not told of it.
"""

import contextlib
import errno
from time import monotonic

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.arch import Registers
from mlockwipe.linux.signals import SIGCHLD, SIGCONT, SIGURG, SIGWINCH, as_bits
from mlockwipe.tracing.restarted import ASKED, MADE, OVER, RETURNED, STOPPED, Restarted
from mlockwipe.tracing.task import Task

_ERESTARTSYS, ERESTARTNOINTR, _ERESTARTNOHAND = 512, 513, 514  # include/linux/errno.h
_INTERRUPTED = frozenset((-errno.EINTR, -_ERESTARTSYS, -_ERESTARTNOHAND))
_NOTIFIED = frozenset(("mlock", "mlock2", "mlockall", "mmap", "old_mmap", "prctl", "seccomp"))
_STOPPING = frozenset((19, 20, 21, 22))  # SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU
_IGNORED_BY_DEFAULT = as_bits((SIGCHLD, SIGCONT, SIGURG, SIGWINCH))


class Restarts:
    """Of the tasks of one tracer. `transfers`: short transfers are completed, too.

    While that lasts the registers are not the program's own: not for one that outlives its tracer.
    """

    def __init__(self, *, transfers: bool) -> None:
        self._transfers = transfers
        self._deadlines: dict[int, float] = {}  # of tasks in a call that was made again

    # -- stops on the way to user space -------------------------------------------------------------------------

    def at_stop(self, task: Task, signal: int = 0) -> int:
        """A task has stopped for a signal, or (0) for us: have its call go on, if no handler is about to run.

        Returns the signal to go on with.
        """
        registers = ptrace.get_registers(task.tid)
        before, task.restarted = task.restarted, None
        if before is not None:
            if before.phase == ASKED and bytes(registers) == before.asked:
                registers = Registers.from_buffer_copy(before.registers)
            elif bytes(registers) != bytes(before.registers):
                before = None
            elif before.phase == OVER or (before.phase == STOPPED and signal in (SIGCONT, 0)):
                task.restarted = before
                return signal
        restarted = self._begin(task, registers, signal, before)
        if restarted is not None:
            registers.set_result(-_ERESTARTNOHAND)
            restarted.asked = bytes(registers)
            task.restarted = restarted
            ptrace.set_registers(task.tid, registers)
            return 0
        if signal in _STOPPING:  # SIGCONT, which is told of by two stops, may come before the stop of the group does
            task.restarted = Restarted(registers, STOPPED)
        if registers.result == -_ERESTARTSYS and _is_notified(registers):
            # A notified call that nobody has received yet is interrupted by any signal and would be restarted only
            # under SA_RESTART (85 of 2000 calls under a 300 us timer, Linux 6.18); mlock(2) knows no EINTR.
            registers.set_result(-ERESTARTNOINTR)
            ptrace.set_registers(task.tid, registers)
        elif before is not None:
            ptrace.set_registers(task.tid, registers)
        return signal

    def _begin(self, task: Task, registers: Registers, signal: int, before: Restarted | None) -> Restarted | None:
        """How a call goes on that a signal has interrupted, if it does."""
        from mlockwipe.tracing import interrupted  # seldom needed

        fails = registers.result == -errno.EINTR and registers.may_call_again
        if not fails and not (self._transfers and interrupted.may_be_short(registers)):
            return None
        if signal and not _ignores(task.tid, signal):
            return None
        if ptrace.get_audit_arch(task.tid) != registers.abi.audit_arch:
            return None  # int $0x80 in 64-bit code: the number is another call's
        restarted = Restarted(registers)
        if not fails:
            restarted.steps = interrupted.rest(task, registers)
            if not restarted.steps:
                return None
        if before is not None:
            restarted.by_us = before.by_us and not signal
        if before is not None and before.deadline is not None:
            restarted.deadline, restarted.timed_out = before.deadline, before.timed_out
        elif (limit := interrupted.time_limit(task, registers)) is not None:
            restarted.deadline, restarted.timed_out = monotonic() + limit[0], limit[1]
        return restarted

    def at_group_stop(self, task: Task) -> None:
        """A stop of its group interrupts a call for the program as well."""
        registers = ptrace.get_registers(task.tid)
        before = task.restarted
        if before is not None and before.phase == ASKED and bytes(registers) == before.asked:
            registers = before.registers
            ptrace.set_registers(task.tid, registers)
        task.restarted = Restarted(registers, STOPPED)

    def interrupt(self, task: Task) -> None:
        """Ask a task to stop for us. Its call goes on after that, however often it is asked."""
        if task.restarted is not None:
            task.restarted.by_us = False
        ptrace.interrupt(task.tid)

    def go_on(self, task: Task, signal: int = 0) -> None:
        if task.restarted is not None and task.restarted.phase in (ASKED, MADE):
            ptrace.cont_to_syscall_stop(task.tid, signal)
        else:
            ptrace.cont(task.tid, signal)

    # -- the call made again ------------------------------------------------------------------------------------

    def at_call(self, task: Task) -> None:
        """A task whose call goes on is at the entry or at the exit of a call; it goes on."""
        registers, restarted = ptrace.get_registers(task.tid), task.restarted
        if restarted is not None and restarted.phase == MADE:
            self._returned(task, restarted, registers)
        elif restarted is not None and restarted.phase == ASKED and restarted.is_made_by(registers):
            self._made(task, restarted, registers)
        else:
            task.restarted = None
        self.go_on(task)

    def _made(self, task: Task, restarted: Restarted, registers: Registers) -> None:
        restarted.phase = MADE
        if restarted.steps:
            number, arguments, _ = restarted.steps[0]
            registers.orig_rax = number
            for index, value in enumerate(arguments):
                registers.set_argument(index, value)
            ptrace.set_registers(task.tid, registers)
        if restarted.is_late:
            ptrace.interrupt(task.tid)
        elif restarted.deadline is not None:
            self._deadlines[task.tid] = restarted.deadline

    def _returned(self, task: Task, restarted: Restarted, registers: Registers) -> None:
        self._deadlines.pop(task.tid, None)
        result, over = registers.result, restarted.is_late
        registers = restarted.registers
        if restarted.steps:
            done = max(result, 0)
            finished = done == restarted.steps.pop(0)[2]
            # Its end, or an error, SIGPIPE say, which is about to be told of by a signal: there is no more to be had.
            over = over or (result <= 0 and result not in _INTERRUPTED and not finished)
            registers.set_result(registers.result + done)
            if finished and restarted.steps:
                restarted.phase = ASKED
                again = registers.again()
                restarted.asked = bytes(again)
                ptrace.set_registers(task.tid, again)
                return
        elif result == -errno.EINTR and over:
            registers.set_result(restarted.timed_out)
        elif result == -errno.EALREADY and restarted.timed_out == -errno.EINPROGRESS:
            registers.set_result(restarted.timed_out)  # by itself, but it was another's when it was made again
        else:
            registers.set_result(result)
        ptrace.set_registers(task.tid, registers)
        if over:
            restarted.phase = OVER
        elif _has_pending(task.tid):
            restarted.phase = RETURNED
        elif result in _INTERRUPTED and not restarted.by_us:
            # By a PTRACE_INTERRUPT of ours, which this stop has used up (ptrace_stop in kernel/signal.c).
            restarted.phase, restarted.by_us = RETURNED, True
            ptrace.interrupt(task.tid)
        else:
            task.restarted = None

    # -- time ---------------------------------------------------------------------------------------------------

    def settle(self) -> float | None:
        """Interrupt the calls whose time is up. The seconds until there is one more."""
        if not self._deadlines:
            return None
        now = monotonic()
        for tid in [tid for tid, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[tid]
            with contextlib.suppress(ProcessLookupError):
                ptrace.interrupt(tid)
        return min(self._deadlines.values()) - now if self._deadlines else None

    def forget(self, tid: int) -> None:
        self._deadlines.pop(tid, None)


def _is_notified(registers: Registers) -> bool:
    try:
        return registers.abi.name(registers.number) in _NOTIFIED
    except KeyError:
        return False


def _ignores(tid: int, signal: int) -> bool:
    status = procfs.Status(tid)
    bit = 1 << (signal - 1)
    if int(status["SigIgn"], 16) & bit:
        return True
    return bool(_IGNORED_BY_DEFAULT & bit & ~int(status["SigCgt"], 16))


def _has_pending(tid: int) -> bool:
    """Whether a signal is about to be delivered."""
    status = procfs.Status(tid)
    return bool((int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)) & ~int(status["SigBlk"], 16))

# SPDX-License-Identifier: MIT
"""System calls executed by a program that ignores SIGTRAP.

The trap after a single step sets an ignored SIGTRAP back to its default, which kills (force_sig_info_to_task in
kernel/signal.c, Linux 6.18). The stops at the entry and the exit of a call are no signals; but there are two of them.
"""

import contextlib
import errno
from types import TracebackType

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.arch import Abi
from mlockwipe.linux.wait import SignalStop, SyscallStop, TaskGone, await_stop
from mlockwipe.memory.inject import FAULTS, Injection

_SIGTRAP_BIT = 1 << 4


def injection(tid: int, status: procfs.Status, abi: Abi, instruction: int) -> Injection:
    """Into a task of the program. It is traced with PTRACE_O_TRACESYSGOOD."""
    kind = Quiet if int(status["SigIgn"], 16) & _SIGTRAP_BIT else Injection
    return kind(tid, abi, instruction)


class Quiet(Injection):
    """An injection without single steps."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, at)
        # One more stop on the way to user space: only there does the kernel restart the call that was interrupted.
        with contextlib.suppress(ProcessLookupError):
            ptrace.interrupt(self.tid)

    def call(self, name: str, *arguments: int) -> int:
        entered = False
        try:
            self._load(name, arguments)
            while True:
                ptrace.cont_to_syscall_stop(self.tid)
                stop = await_stop(self.tid)
                if isinstance(stop, SyscallStop):
                    registers = ptrace.get_registers(self.tid)
                    if entered:
                        return registers.result
                    entered = registers.executed_at() == self.instruction
                    strayed = not entered
                else:
                    strayed = isinstance(stop, SignalStop) and stop.signal in FAULTS
                if strayed:
                    raise OSError(errno.EFAULT, "there is no system-call instruction any more where there was one")
                self._on_other_stop(stop)
        except ProcessLookupError:
            raise TaskGone(self.tid) from None

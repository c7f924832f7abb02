# SPDX-License-Identifier: MIT
"""System calls executed by another task, for us.

A task in a ptrace stop is pointed at a system-call instruction of its own memory and single-stepped over it: one
stop a call. Its registers and signal mask come back exactly as they were, and with them what the kernel does next:
a call that was interrupted by the stop is restarted by the kernel itself.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from types import TracebackType

from mlockwipe.linux import procfs, ptrace, signals
from mlockwipe.linux.arch import Abi, Registers
from mlockwipe.linux.mman import CLONE_VM
from mlockwipe.linux.wait import (
    EVENT_CLONE,
    EVENT_EXIT,
    SLEEPING,
    EventStop,
    GroupStop,
    SignalStop,
    Stop,
    Stuck,
    TaskGone,
    TrapStop,
    await_stop,
)

_SIGTRAP = 5
BRIEFLY = 0.3  # seconds
# Those that a faulty instruction raises. Blocked as they are meanwhile, nobody else can bring them.
FAULTS = frozenset((4, 7, 11))  # SIGILL, SIGBUS, SIGSEGV
_ALL_SIGNALS = (1 << 64) - 1
# What a task blocks while it executes calls for us. Not SIGTRAP: the trap after a step, finding it blocked, takes the
# program's handler for it away (force_sig_info_to_task in kernel/signal.c, Linux 6.18).
MASK = _ALL_SIGNALS & ~signals.as_bits((_SIGTRAP, signals.SIGKILL, signals.SIGSTOP))


unfinished: "dict[int, Injection]" = {}  # of tasks that were stuck, and could not be left as they were yet


class Injection:
    """`with Injection(tid, abi, instruction) as task: task.call("munmap", address, length)`

    The task is in a stop on its way to user space (not at the entry of a call). `instruction` is the address of a
    system-call instruction; `another` looks for one, should the program have unmapped that. While it lasts, the task
    takes no signals; one that can't be blocked is put off. `is_ours`: a helper, which is killed when it is stuck.
    """

    def __init__(
        self,
        tid: int,
        abi: Abi,
        instruction: int,
        another: Callable[[], int | None] = lambda: None,
        *,
        is_ours: bool = False,
    ) -> None:
        self.tid = tid
        self.abi = abi
        self.instruction = instruction
        self._another = another
        self._is_ours = is_ours
        self.patience = SLEEPING
        self._deferred: list[int] = []
        self._group_stopped = False
        self._cloned = 0
        self._restore = True

    def __enter__(self) -> "Injection":
        try:
            self._registers = ptrace.get_registers(self.tid)
            if not self._registers.in_call:
                self._leave_restartable_sequence()
            self._mask = ptrace.get_signal_mask(self.tid)
            ptrace.set_signal_mask(self.tid, MASK)
        except ProcessLookupError:
            raise TaskGone(self.tid) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if not self._restore or kind is TaskGone:
            return
        try:
            ptrace.set_registers(self.tid, self._registers)
            ptrace.set_signal_mask(self.tid, self._mask)
            for number in self._deferred:
                signals.send_to_thread(_tgid(self.tid), self.tid, number)
            if self._group_stopped:
                ptrace.interrupt(self.tid)  # have the stop of its group reported again once it goes on
        except ProcessLookupError:
            if kind is None:
                raise TaskGone(self.tid) from None
            if kind is Stuck and not self._is_ours:
                unfinished[self.tid] = self

    def _take_back(self) -> None:
        """Stop a task that does not get on: one of a frozen control group stops, though it executes nothing.

        One of our own must not go on later, and is killed.
        """
        with contextlib.suppress(Stuck, TaskGone, ProcessLookupError):
            if self._is_ours:
                os.kill(self.tid, signals.SIGKILL)
            else:
                ptrace.interrupt(self.tid)
            if self._trap_is_to_come(await_stop(self.tid, BRIEFLY)):
                ptrace.cont(self.tid)
                await_stop(self.tid, BRIEFLY)

    def _trap_is_to_come(self, stop: Stop) -> bool:
        """Whether the signal of the step is pending: it comes after the stop that was asked for, as the next one."""
        pending = int(procfs.status_field(self.tid, "SigPnd"), 16)
        return not _is_trap(stop) and bool(pending & signals.as_bits((_SIGTRAP,)))

    def finish(self, stop: Stop) -> Stop | None:
        """At the next stop of a task that was stuck: the stop that it is in then. None: it has gone on to another."""
        if isinstance(stop, EventStop) and stop.event == EVENT_CLONE:  # of a helper, which nobody waits for any more
            ptrace.interrupt(self.tid)
            ptrace.cont(self.tid)
            return None
        if self._trap_is_to_come(stop):
            ptrace.cont(self.tid)
            return None
        del unfinished[self.tid]
        if isinstance(stop, EventStop):
            return stop
        self.__exit__(None, None, None)
        return TrapStop(self.tid) if _is_trap(stop) else stop

    def _leave_restartable_sequence(self) -> None:
        """Within a restartable sequence (rseq(2)), go on at its abort handler, as after any switch of tasks.

        When the task executes a call for us, the kernel finds it outside of the sequence and forgets about that
        (rseq_ip_fixup in kernel/rseq.c, Linux 6.18). Sent back into its middle, it would go on with what it had read.
        """
        try:
            area = ptrace.rseq(self.tid)
            # struct rseq: two numbers of CPUs, then the address of a struct rseq_cs. That has version and flags,
            # where the sequence starts, how long it is, and where it is aborted.
            sequence = int.from_bytes(ptrace.peek(self.tid, area + 8), "little") if area else 0
            if sequence:
                start, length, abort = (
                    int.from_bytes(ptrace.peek(self.tid, sequence + at), "little") for at in (8, 16, 24)
                )
                if start <= self._registers.instruction_pointer < start + length:
                    self._registers.go_on_at(abort)
        except ProcessLookupError:
            raise
        except OSError:
            return  # it has an address where nothing is, or we may not look

    @property
    def registers(self) -> Registers:
        """The registers at the stop before the first injected call."""
        return self._registers

    def call(self, name: str, *arguments: int) -> int:
        """Execute one call and return its result, negative errno for an error.

        OSError when what it is pointed at is no system-call instruction: it executes no other one for us.
        """
        try:
            result = self._execute(name, arguments)
            if result is None and (instruction := self._another()) is not None:
                self.instruction = instruction
                result = self._execute(name, arguments)
        except ProcessLookupError:
            raise TaskGone(self.tid) from None
        if result is None:
            raise OSError(errno.EFAULT, "there is no system-call instruction any more where there was one")
        return result

    def _execute(self, name: str, arguments: tuple[int, ...]) -> int | None:
        """The result, or None when no call was made."""
        self._load(name, arguments)
        ptrace.single_step(self.tid)
        while True:
            try:
                stop = await_stop(self.tid, self.patience)
            except Stuck:
                self._take_back()
                raise
            registers = ptrace.get_registers(self.tid)
            if _is_trap(stop):
                if registers.executed_at() == self.instruction:
                    return registers.result
                # Before the call has been executed, somebody else may have sent a SIGTRAP.
                if registers.instruction_pointer != self.instruction:
                    return None
            elif isinstance(stop, SignalStop) and stop.signal in FAULTS:
                return None
            self._on_other_stop(stop)
            ptrace.single_step(self.tid)

    def clone(self, flags: int = 0) -> tuple[int, int]:
        """A new task that shares this one's memory and, but for `flags`, nothing else; traced, in its first stop.

        Its pid here, and its pid as this task's PID namespace counts. It sends no signal at its end. OSError when
        the kernel refuses one.
        """
        self._cloned = 0
        result = self.call("clone", CLONE_VM | flags, 0, 0, 0, 0)
        if result < 0:
            raise OSError(-result, f"clone(CLONE_VM) in process {self.tid}: {os.strerror(-result)}")
        await_stop(self._cloned)
        return self._cloned, result

    def point_at(self, name: str, *arguments: int) -> None:
        """Make this call what the task does for good when it is let go, instead of what it was doing.

        All signals are blocked then.
        """
        self._restore = False
        try:
            self._load(name, arguments)
            ptrace.set_signal_mask(self.tid, _ALL_SIGNALS)
        except ProcessLookupError:
            raise TaskGone(self.tid) from None

    def _load(self, name: str, arguments: tuple[int, ...]) -> None:
        registers = Registers.from_buffer_copy(self._registers)
        registers.aim(self.abi, self.instruction, name, arguments)
        ptrace.set_registers(self.tid, registers)

    def _on_other_stop(self, stop: Stop) -> None:
        match stop:
            case EventStop(event=event) if event == EVENT_CLONE:
                self._cloned = ptrace.get_event_message(self.tid)
            case EventStop(event=event) if event == EVENT_EXIT:
                raise TaskGone(self.tid)
            case GroupStop() | TrapStop():
                self._group_stopped = True
            case SignalStop(signal=number):
                self._deferred.append(number)


def _is_trap(stop: Stop) -> bool:
    return isinstance(stop, SignalStop) and stop.signal == _SIGTRAP


def _tgid(tid: int) -> int:
    return int(procfs.status_field(tid, "Tgid"))

# SPDX-License-Identifier: MIT
"""Calls of filter two: those that release or unlock memory stop their task, before and after the kernel does them.

`begin` and `returned` also serve the watched locks of filter one (notified.py).
"""

import contextlib
import os
from time import monotonic_ns

from mlockwipe.linux import ptrace, wait
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.linux.mman import CLONE_UNTRACED
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory.address_space import CallUnderWay
from mlockwipe.memory.calls import Call, decode
from mlockwipe.memory.journal import SaveArea
from mlockwipe.memory.sensitive import Change, given_up, return_matters
from mlockwipe.tracing.counts import Counts
from mlockwipe.tracing.task import Task, TaskState
from mlockwipe.tracing.tracees import Tracees

_BRIEFLY = 150_000  # ns
_MUNMAP = NATIVE.numbers["munmap"]


class TrappedCalls:
    """`save_area`: for the content of pages whose release may fail."""

    def __init__(self, tracees: Tracees, counts: Counts, save_area: SaveArea) -> None:
        self._tracees = tracees
        self._counts = counts
        self._save_area = save_area
        self._single_cpu = len(os.sched_getaffinity(0)) == 1

    def entered(self, task: Task) -> None:
        """A task has stopped at the entry of a call; it goes on."""
        audit_arch, number, arguments = ptrace.get_syscall_entry(task.tid)
        space = task.space
        if number == _MUNMAP and audit_arch == NATIVE.audit_arch:  # by far the most frequent, and mostly not ours
            start, length = arguments[:2]
            sensitive = space.sensitive
            if not sensitive.future and not sensitive.ranges.overlaps(start, start + length + PAGE_SIZE):
                ptrace.cont(task.tid)
                return
        try:
            call = decode(audit_arch, number, arguments, space.state.memory_fd)
        except (KeyError, OSError):  # not ours, or arguments in memory that is not there
            ptrace.cont(task.tid)
            return
        if call.name in ("clone", "clone3"):
            _clear_untraced(task, call)
        elif not space.sensitive.ranges:
            space.program_break = None  # not followed while there is nothing to protect
        elif self._begin_trapped(task, call):
            task.become(TaskState.IN_CALL)
            ptrace.cont_to_syscall_stop(task.tid)
            self.await_briefly(task)
            return
        ptrace.cont(task.tid)

    def _begin_trapped(self, task: Task, call: Call) -> bool:
        """Do what a call demands at its entry: False if its return is of no interest."""
        under_way = self.begin(task, call)
        if under_way is None:
            return False
        space = task.space
        growing = call.name == "brk" and call.arguments[0] > space.heap_end
        if not (under_way or growing or return_matters(space.sensitive, call)):
            return False
        task.under_way = under_way
        return True

    def begin(self, task: Task, call: Call) -> CallUnderWay | None:
        """Wipe what a call will release; None when that can't be found out."""
        space = task.space
        failure: Exception | None
        try:
            spans = space.released(call, task.tid)
            self._tracees.observer.entered(task, call, given_up(call, spans))
            under_way = space.begin(call, spans, self._save_area)
            failure = under_way.failure
        except TaskGone:
            raise
        except Exception as error:
            under_way, failure = None, error
        if isinstance(failure, OSError):
            self._not_protected(
                task, f"pages released by {call.name} could not be wiped: {failure.strerror or failure}"
            )
        elif failure is not None:
            self._tracees.failed(task.tgid, failure)
        if under_way is not None and under_way.wiped_pages:
            self._counts.wiped[call.name] += under_way.wiped_pages
        return under_way

    def returned(self, task: Task) -> None:
        """A task has stopped with the result of the call that it was in."""
        result = ptrace.get_registers(task.tid).result  # of one that is killed now, what is under way is abandoned
        task.become(TaskState.RUNNING)
        under_way = task.under_way
        if under_way is None:
            return
        change = Change()
        try:
            change = task.space.end(under_way, result)
            if under_way.may_add(result):
                task.space.record(self._tracees.journal)
        except OSError as error:
            self._not_protected(
                task, f"what came of {under_way.call.name} could not be found out: {error.strerror or error}"
            )
        task.under_way = None
        self._tracees.observer.returned(task, under_way.call, result, under_way.change, change)

    def await_briefly(self, task: Task) -> None:
        """Look for the stop at the end of a call that takes microseconds as a rule, instead of sleeping for it.

        Not for longer: a call can depend on another task of the program, of a userfaultfd or FUSE, that waits for us.
        """
        if self._single_cpu:
            return
        deadline = monotonic_ns() + _BRIEFLY
        while (stop := wait.look_for_stop(task.tid)) is None:
            os.sched_yield()  # to the task, if it was woken on this CPU
            if monotonic_ns() > deadline:
                return
        self._tracees.on_stop(stop)

    def _not_protected(self, task: Task, reason: str) -> None:
        self._tracees.policy.not_protected(task.tgid, reason)


def _clear_untraced(task: Task, call: Call) -> None:
    """A child made with CLONE_UNTRACED would have filter two and no tracer: every trapped call would fail."""
    memory_fd = task.space.state.memory_fd
    if call.name == "clone":
        registers = ptrace.get_registers(task.tid)
        registers.set_argument(0, registers.argument(0) & ~CLONE_UNTRACED)
        ptrace.set_registers(task.tid, registers)
    elif memory_fd != -1:
        address = call.arguments[0]  # struct clone_args begins with 64 bits of flags
        with contextlib.suppress(OSError, OverflowError):  # the call will fail with EFAULT
            flags = int.from_bytes(os.pread(memory_fd, 8, address), "little")
            if flags & CLONE_UNTRACED:
                os.pwrite(memory_fd, (flags & ~CLONE_UNTRACED).to_bytes(8, "little"), address)

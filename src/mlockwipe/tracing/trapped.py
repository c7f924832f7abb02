# SPDX-License-Identifier: MIT
"""Calls of filter two: those that release or unlock memory stop their task, before and after the kernel does them.

`begin` and `returned` also serve the watched locks of filter one (notified.py).
"""

import contextlib
import os
from time import monotonic_ns, sleep

from mlockwipe.linux import procfs, ptrace, wait
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.mman import CLONE_UNTRACED
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory.address_space import CallUnderWay
from mlockwipe.memory.calls import Call, decode, read_memory
from mlockwipe.memory.filters import MAKES_RING, OPENS_DIRECTLY
from mlockwipe.memory.journal import SaveArea
from mlockwipe.memory.sensitive import Change, given_up, return_matters
from mlockwipe.tracing import priority
from mlockwipe.tracing.counts import Counts
from mlockwipe.tracing.priority import Priority
from mlockwipe.tracing.task import Task, TaskState
from mlockwipe.tracing.tracees import Tracees

_BRIEFLY = 150_000  # ns
_WAITS = frozenset(("wait4", "waitid", "waitpid"))  # with WNOHANG, as the filter says
_PATIENTLY = 50_000_000
_SOON = 1_000_000
_SHORT_SLEEP = 0.00005  # seconds
_MUNMAP = NATIVE.numbers["munmap"]


class TrappedCalls:
    """`save_area`: for the content of pages whose release may fail."""

    def __init__(self, tracees: Tracees, counts: Counts, save_area: SaveArea) -> None:
        self._tracees = tracees
        self._counts = counts
        self._save_area = save_area
        self.priority = Priority()
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
        elif call.name in MAKES_RING:
            space.has_rings = True
        elif call.name in OPENS_DIRECTLY:
            space.has_direct_files = True
        elif call.name in priority.CALLS:
            self.priority.above_call(call, space.state.memory_fd)
        elif call.name in _WAITS:
            self._tracees.put_off(task)
            return
        elif call.name == "prctl":
            space.highest_break = TASK_SIZE  # PR_SET_MM sets the break, too
        elif not space.sensitive.ranges:
            space.highest_break = TASK_SIZE  # not followed while there is nothing to protect
        elif self._begin_trapped(task, call):
            task.become(TaskState.IN_CALL)
            ptrace.cont_to_syscall_stop(task.tid)
            self.await_return(task)
            return
        ptrace.cont(task.tid)

    def _begin_trapped(self, task: Task, call: Call) -> bool:
        """Do what a call demands at its entry: False if its return is of no interest."""
        under_way = self.begin(task, call)
        if under_way is None:
            return False
        space = task.space
        if not (under_way or return_matters(space.sensitive, call)):
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
            under_way = space.begin(call, spans, self._save_area, lambda: self._stop_others(task))
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
        if space.may_move_aside:
            space.record(self._tracees.journal)
        return under_way

    def returned(self, task: Task) -> None:
        """A task has stopped with the result of the call that it was in."""
        result = ptrace.get_registers(task.tid).result  # of one that is killed now, what is under way is abandoned
        task.become(TaskState.RUNNING)
        under_way = task.under_way
        if under_way is None:
            return
        space, change = task.space, Change()
        try:
            change = space.end(under_way, result)
            if under_way.may_add(result) or space.may_move_aside:
                space.record(self._tracees.journal)
            if space.aside:
                self._tracees.await_io(space)
        except OSError as error:
            self._not_protected(
                task, f"what came of {under_way.call.name} could not be found out: {error.strerror or error}"
            )
        task.under_way = None
        self._tracees.observer.returned(task, under_way.call, result, under_way.change, change)

    def _stop_others(self, task: Task) -> None:
        """Stop all other tasks that use the memory of one that is in a call, but for those that can't go on anyway.

        Their stops are left to be handled like any other, which lets them go on: so nobody may look for stops before
        the call has returned.
        """
        tasks = self._tracees.tasks
        others = [tid for tid in task.space.tids - {task.tid} if tasks[tid].state is not TaskState.GROUP_STOPPED]
        for tid in others:
            with contextlib.suppress(ProcessLookupError):
                self._tracees.restarts.interrupt(tasks[tid])
        start = monotonic_ns()
        for tid in others:
            while not wait.is_still(tid):
                waited = monotonic_ns() - start
                if waited > _PATIENTLY or (waited > _SOON and procfs.is_deep_asleep(tid)):
                    break
                _let_others_run(long=waited > _BRIEFLY)

    def await_return(self, task: Task) -> None:
        """Look for the stop at the end of a call that takes microseconds as a rule, instead of sleeping for it.

        Not for long: a call can depend on another task of the program, of a userfaultfd or FUSE, that waits for us.
        """
        alone = task.under_way is not None and task.under_way.alone
        if (self._single_cpu or self.priority.raised) and not alone:  # it could not run as long as we look
            return
        deadline = monotonic_ns() + (_PATIENTLY if alone else _BRIEFLY)
        while (stop := wait.look_for_stop(task.tid)) is None:
            now = monotonic_ns()
            if now > deadline:
                return
            _let_others_run(long=alone and now > deadline - _PATIENTLY + _BRIEFLY)
        self._tracees.on_stop(stop)

    def _not_protected(self, task: Task, reason: str) -> None:
        self._tracees.policy.not_protected(task.tgid, reason)


def _let_others_run(*, long: bool) -> None:
    """A task that was woken on this CPU, say: as a rule it takes microseconds. `long`: whatever its priority is."""
    if long:
        sleep(_SHORT_SLEEP)
    else:
        os.sched_yield()


def _clear_untraced(task: Task, call: Call) -> None:
    """A child made with CLONE_UNTRACED would have filter two and no tracer: every trapped call would fail."""
    memory_fd = task.space.state.memory_fd
    if call.name == "clone":
        registers = ptrace.get_registers(task.tid)
        registers.set_argument(0, registers.argument(0) & ~CLONE_UNTRACED)
        ptrace.set_registers(task.tid, registers)
    elif memory_fd != -1:
        address = call.arguments[0]  # struct clone_args begins with 64 bits of flags
        with contextlib.suppress(OSError):
            flags = int.from_bytes(read_memory(memory_fd, address, 8), "little")
            if flags & CLONE_UNTRACED:
                os.pwrite(memory_fd, (flags & ~CLONE_UNTRACED).to_bytes(8, "little"), address)

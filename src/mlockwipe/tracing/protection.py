# SPDX-License-Identifier: MIT
"""Giving an address space its keeper, and a process filter two, while one of its tasks is stopped."""

from collections.abc import Callable

from mlockwipe.linux import procfs
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory import in_flight
from mlockwipe.memory.filters import filter_two
from mlockwipe.memory.keeper import Keeper
from mlockwipe.tracing.task import FilterTwo, Task
from mlockwipe.tracing.tracees import GONE, Tracees


class Protection:
    """`entrust`: gets each new keeper, once its process can go on. `inherited_filters`: how many seccomp filters a
    process has that the program did not add, but for filter one. `unmap`: whether filter two stops releases."""

    def __init__(
        self,
        tracees: Tracees,
        entrust: Callable[[Keeper], None],
        inherited_filters: int,
        *,
        unmap: bool,
    ) -> None:
        self._tracees = tracees
        self._entrust = entrust
        self._filter_two = filter_two(unmap=unmap)
        self._inherited_filters = inherited_filters
        self._reapers: dict[int, str] = {}  # processes that get orphans: when each was started

    def protect(self, task: Task, like: Keeper | None = None) -> None:
        """Give the address space of a stopped task its keeper. `like`: that of the parent, after a fork.

        TaskGone when the task dies meanwhile.
        """
        space = task.space
        try:
            status = procfs.Status(task.tid)
            self._find_out(task, status)
            needs_filter = task.lacks_filter
            if self._is_confined(task, status):
                if len(space.tids) > 1:  # it may be another thread's turn to lock
                    self._leave_out(task)
                    return
                raise OSError("it has seccomp filters of its own, which may kill it for a call that a keeper needs")
            if like is None:
                space.stack_top = procfs.stack_top(task.tid)
            if needs_filter:
                self._mark(task, FilterTwo.PERHAPS)
            keeper = Keeper.create(
                task.tid, status, self._filter_two if needs_filter else None, like, self._is_reaper(task.tgid)
            )
        except GONE:
            raise TaskGone(task.tid) from None
        except OSError as error:
            space.leave_unprotected(self._tracees.journal)
            self._tracees.policy.not_protected(task.tgid, error.strerror or str(error))
            return
        if needs_filter:
            self._has_got_filter(task, whole_process=keeper.whole_process)
        held = self._tracees.keep(space, keeper)
        if any(self._tracees.tasks[tid].filter_two is FilterTwo.REFUSED for tid in space.tids):
            for start, end in held.mappings.locked():  # by a thread that was left out
                space.sensitive.ranges.add(start, end)

    def note_reaper(self, tgid: int, on: int) -> None:
        """A process has asked for the orphans among its descendants, or asks for them no more."""
        self._reapers.pop(tgid, None)
        if on:
            self._reapers[tgid] = procfs.start_time(tgid)

    def _is_reaper(self, tgid: int) -> bool:
        return tgid in self._reapers and self._reapers[tgid] == procfs.start_time(tgid)

    def entrust(self, task: Task) -> None:
        """Hand out what shows the memory of a keeper that was made for this task, which goes on by now."""
        space = task.space
        if (held := space.held) is not None:
            self._entrust(held.keeper)
            if not space.sensitive.inherited:
                space.has_rings |= in_flight.has_ring(task.tid)

    def add_filter(self, task: Task) -> None:
        """Add filter two to the process of a stopped task, if it is not there. TaskGone as in `protect`."""
        held = task.space.held
        if not task.lacks_filter or held is None:
            return
        try:
            status = procfs.Status(task.tid)
            self._find_out(task, status)
            if not task.lacks_filter:
                return
            if self._is_confined(task, status):
                self._leave_out(task)
                return
            self._mark(task, FilterTwo.PERHAPS)
            whole_process = held.keeper.add_filter(task.tid, status, self._filter_two)
        except GONE:
            raise TaskGone(task.tid) from None
        except OSError as error:
            task.filter_two = FilterTwo.REFUSED
            self._tracees.policy.not_protected(task.tgid, error.strerror or str(error))
            return
        self._has_got_filter(task, whole_process=whole_process)

    def can_get_filter(self, task: Task) -> bool:
        """Whether a task lacks filter two, and may be stopped to get it. FileNotFoundError without the task."""
        if not task.lacks_filter or task.space.held is None:
            return False
        if not self._is_confined(task, procfs.Status(task.tid)):
            return True
        self._leave_out(task)
        return False

    def _is_confined(self, task: Task, status: procfs.Status) -> bool:
        """Whether a task has filters that are not ours: one may kill it for what we would have it execute."""
        ours = self._inherited_filters + (2 if task.filter_two is FilterTwo.YES else 1)
        return int(status["Seccomp_filters"]) > ours

    def _leave_out(self, task: Task) -> None:
        task.filter_two = FilterTwo.REFUSED
        self._tracees.policy.partly_protected(
            task.tgid,
            "a thread of it has seccomp filters of its own, which may kill it for a call of ours: what that thread "
            "releases is wiped only when the process has ended",
        )

    def _find_out(self, task: Task, status: procfs.Status) -> None:
        """Whether filter two is there, where its adding was cut off: by the number of filters."""
        if task.filter_two is FilterTwo.PERHAPS:
            there = int(status["Seccomp_filters"]) == self._inherited_filters + 2
            task.filter_two = FilterTwo.YES if there else FilterTwo.NO

    def _mark(self, task: Task, filter_two: FilterTwo) -> None:
        """All threads of a task's process that have no filter for sure."""
        for other in (task, *(self._tracees.tasks[tid] for tid in task.space.tids)):
            if other.tgid == task.tgid and other.lacks_filter:
                other.filter_two = filter_two

    def _has_got_filter(self, task: Task, *, whole_process: bool) -> None:
        self._mark(task, FilterTwo.YES if whole_process else FilterTwo.NO)
        task.filter_two = FilterTwo.YES

# SPDX-License-Identifier: MIT
"""A traced task and the states it can be in; docs/supervisor.md has the same table of what may follow what."""

from enum import Enum

from mlockwipe.memory.address_space import AddressSpace, CallUnderWay
from mlockwipe.tracing.restarted import Restarted


class TaskState(Enum):
    __hash__ = object.__hash__  # Enum's own is a function in Python, called twice at each change of state

    RUNNING = "RUNNING"
    NOTIFIED = "NOTIFIED"  # in a call of filter one that was let go on; stops on its way back, with the result
    IN_CALL = "IN_CALL"  # in a call of filter two that concerns sensitive memory; stops at its exit
    GROUP_STOPPED = "GROUP_STOPPED"  # stopped by a job-control signal, as its parent sees it too


TRANSITIONS = {
    TaskState.RUNNING: frozenset((TaskState.NOTIFIED, TaskState.IN_CALL, TaskState.GROUP_STOPPED)),
    TaskState.NOTIFIED: frozenset((TaskState.RUNNING,)),
    TaskState.IN_CALL: frozenset((TaskState.RUNNING,)),
    TaskState.GROUP_STOPPED: frozenset((TaskState.RUNNING,)),
}


class FilterTwo(Enum):
    """Whether a task has filter two."""

    NO = "no"
    PERHAPS = "perhaps"  # the task that was to add it was killed meanwhile, by another thread's exec say
    YES = "yes"
    REFUSED = "refused"  # the kernel did not take it: reported once, not tried again


class Task:
    """`under_way`: its call that is being looked at, in NOTIFIED and IN_CALL. `restarted`: its call that goes on
    though a signal has interrupted it (restarted.py)."""

    __slots__ = ("filter_two", "restarted", "space", "state", "tgid", "tid", "under_way")

    def __init__(self, tid: int, tgid: int, space: AddressSpace, filter_two: FilterTwo = FilterTwo.NO) -> None:
        self.tid = tid
        self.tgid = tgid
        self.space = space
        self.filter_two = filter_two
        self.state = TaskState.RUNNING
        self.under_way: CallUnderWay | None = None
        self.restarted: Restarted | None = None

    @property
    def lacks_filter(self) -> bool:
        return self.filter_two in (FilterTwo.NO, FilterTwo.PERHAPS)

    def become(self, state: TaskState) -> None:
        if state is not self.state:
            assert state in TRANSITIONS[self.state], (self.state, state)
            self.state = state

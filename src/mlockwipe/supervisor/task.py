# SPDX-License-Identifier: MIT
"""A traced task and the states it can be in; docs/supervisor.md has the table of what may follow what."""

from enum import Enum, auto

from mlockwipe.linux import ptrace
from mlockwipe.supervisor.address_space import AddressSpace, Pending

PROGRAM_OPTIONS = (
    ptrace.O_TRACESYSGOOD
    | ptrace.O_TRACEFORK
    | ptrace.O_TRACEVFORK
    | ptrace.O_TRACECLONE
    | ptrace.O_TRACEEXEC
    | ptrace.O_TRACESECCOMP
    | ptrace.O_EXITKILL
)


class TaskState(Enum):
    RUNNING = auto()
    NOTIFIED = auto()  # in a call of filter one that was let go on; stops on its way back, with the result
    IN_CALL = auto()  # in a call of filter two that concerns sensitive memory; stops at its exit
    GROUP_STOPPED = auto()  # stopped by a job-control signal, as its parent sees it too


class Task:
    """`filtered`: whether it has filter two. `pending`: the call that is under way, in NOTIFIED and IN_CALL."""

    __slots__ = ("filtered", "pending", "space", "state", "tgid", "tid")

    def __init__(self, tid: int, tgid: int, space: AddressSpace, filtered: bool = False) -> None:
        self.tid = tid
        self.tgid = tgid
        self.space = space
        self.filtered = filtered
        self.state = TaskState.RUNNING
        self.pending: Pending | None = None

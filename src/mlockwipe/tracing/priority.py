# SPDX-License-Identifier: MIT
"""The supervisor's own priority: above those of the real-time tasks that wait for it.

While it has none, anything of real time on the same processor, a less urgent thread of the program's own say, keeps
it from answering, and so the more urgent one from going on.
"""

import contextlib
import os

from mlockwipe.memory.calls import Call

_HIGHEST = 99
_REAL_TIME = frozenset((os.SCHED_FIFO, os.SCHED_RR))

CALLS = frozenset(("sched_setscheduler", "sched_setparam", "sched_setattr"))


class Priority:
    """`raised`: whether it is one of real time by now."""

    def __init__(self) -> None:
        self.raised = False
        self._level = 0

    def above(self, level: int) -> None:
        """Be above a level of real time, where the kernel lets us: it lets root, and RLIMIT_RTPRIO."""
        level = min(level + 1, _HIGHEST)
        if level > self._level:
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(level))
                self._level, self.raised = level, True

    def above_task(self, tid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK in _REAL_TIME:
                self.above(os.sched_getparam(tid).sched_priority)

    def above_call(self, call: Call, memory_fd: int) -> None:
        """Be above what a call of CALLS asks for."""
        _, second, third = call.arguments[:3]
        with contextlib.suppress(OSError, OverflowError):  # arguments in memory that is not there
            match call.name:
                case "sched_setscheduler":
                    policy, level = second, os.pread(memory_fd, 4, third)
                case "sched_setparam":
                    policy, level = os.SCHED_FIFO, os.pread(memory_fd, 4, second)
                case _:
                    attributes = os.pread(memory_fd, 24, second)  # struct sched_attr up to its priority
                    policy, level = int.from_bytes(attributes[4:8], "little"), attributes[20:24]
            asked = int.from_bytes(level, "little")
            if policy & 0xFFFFFFFF & ~os.SCHED_RESET_ON_FORK in _REAL_TIME and 0 < asked <= _HIGHEST:
                self.above(asked)

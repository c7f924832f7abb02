# SPDX-License-Identifier: MIT
"""A call that goes on though a signal has interrupted it, and how far that is; restart.py has the steps."""

from time import monotonic

from mlockwipe.linux.arch import Registers

# Where a call that goes on is: to be made again, made again, back from that before a stop for another signal; or it
# ends with what it has, for its time is up or there is no more, or for it was interrupted by a stop of its group, as
# it would be without us.
ASKED, MADE, RETURNED, OVER, STOPPED = range(5)


class Restarted:
    """A call that goes on.

    `registers`: of the task, with the result of the interrupted call; `asked`: as they were set for the restart.
    `timed_out`: what it returns at the `deadline`. `steps`: the calls that transfer the rest. `by_us`: no signal was
    seen that would have interrupted it the last time.
    """

    __slots__ = ("asked", "by_us", "deadline", "phase", "registers", "steps", "timed_out")

    def __init__(self, registers: Registers, phase: int = ASKED) -> None:
        self.registers = Registers.from_buffer_copy(registers)
        self.phase = phase
        self.asked = b""
        self.by_us = False
        self.deadline: float | None = None
        self.timed_out = 0
        self.steps: list[tuple[int, tuple[int, ...], int]] = []

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and monotonic() >= self.deadline

    def is_made_by(self, registers: Registers) -> bool:
        """Whether a task at the entry of a call makes this one: a handler may have run, and may make others."""
        return all(getattr(registers, name) == getattr(self.registers, name) for name in registers.call_names)

# SPDX-License-Identifier: MIT
"""Bursts of stops, in which the supervisor sleeps in waitid(2) itself.

A program that unmaps in a loop stops again within microseconds, and being woken costs more than all that is done
about a stop. The kernel wakes a tracer that sleeps in waitid as one that takes over the CPU from the task that has
just stopped; one that sleeps in epoll for a SIGCHLD it wakes on another, idle CPU (Linux 6.18). But waitid hears
nothing else, so a timer ends each such sleep after a millisecond at the latest, for a look at everything else.
"""

import signal
from time import monotonic_ns

from mlockwipe.linux import wait

_SOON = 300_000  # ns from one stop to the next
_MANY = 8
_TICK = 0.001  # seconds


class _Tick(Exception):
    """The timer has fired while we slept."""


class Burst:
    """Whether stops come thick and fast, and sleeping until the next while they do."""

    __slots__ = ("_due", "_last", "_quick", "_seen", "_waiting", "on")

    def __init__(self) -> None:
        self.on = False
        self._waiting = False
        self._due = False
        self._seen = False  # a stop since the last tick
        self._last = 0
        self._quick = 0
        signal.signal(signal.SIGALRM, self._on_tick)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])

    def stop_handled(self) -> None:
        self._seen = True
        if self.on:
            return
        now = monotonic_ns()
        self._quick = self._quick + 1 if now - self._last < _SOON else 0
        self._last = now
        if self._quick > _MANY:
            self.on = True
            signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)

    def end(self) -> None:
        self._quick = 0
        if self.on:
            self.on = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def next(self) -> wait.Stop | wait.End | None:
        """A child that has stopped or ended, which is left to be waited for. ChildProcessError without children.

        None in a burst when it is time for everything else, and outside of one when no child has anything to tell. At
        the end of a burst the two are not the same: the signal of a child that waits may have been read by then.
        """
        found = self._sleep() if self.on else None
        if found is None and not self.on:
            found = wait.look()
        return found

    def _sleep(self) -> wait.Stop | wait.End | None:
        # The tick may come at any point from here on. What waitid has found is not lost then, for it is left there.
        try:
            self._waiting = True
            found = None if self._due else wait.look(sleep=True)
            self._waiting = False
        except _Tick:
            found = None
        except ChildProcessError:
            self._waiting = False
            raise
        if found is None:
            self._due = False
            if not self._seen:
                self.end()
            self._seen = False
        return found

    def _on_tick(self, *_: object) -> None:
        if self._waiting:
            self._waiting = False
            raise _Tick
        self._due = True

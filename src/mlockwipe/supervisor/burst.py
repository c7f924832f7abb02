# SPDX-License-Identifier: MIT
"""Bursts of stops: whether to look for the next one at once instead of sleeping for it.

A program that unmaps in a loop stops again within microseconds. Being woken on another CPU takes longer than that
(a tracer in C that does nothing: 36-52 us a stop across CPUs, 11-15 us on one), so in a burst the supervisor stays
awake for the next stop. Where that fails, because both CPUs are busy or the burst is over, it tries more rarely.
"""

import os
from time import monotonic_ns

_SOON = 40_000  # ns
_BURST = 8  # stops in quick succession
_STEADY = 64  # hits after which an earlier failure is forgotten
_SELDOM = 4096


class Burst:
    """When stops come, and how it went to wait for one awake."""

    __slots__ = ("_backoff", "_hits", "_last", "_quick", "awake")

    def __init__(self) -> None:
        self.awake = False
        self._last = 0
        self._quick = 0
        self._hits = 0
        self._backoff = 32
        if len(os.sched_getaffinity(0)) == 1:
            self._quick = -(1 << 62)  # the program can't run while we look

    def handled(self) -> None:
        """A stop has been handled."""
        self._last = monotonic_ns()

    def came(self) -> None:
        """A stop was there without waiting for it awake."""
        if monotonic_ns() - self._last < _SOON:
            self._quick += 1
            if self._quick > _BURST:
                self.awake = True
                self._hits = 0
        elif self._quick > 0:
            self._quick = 0

    def hit(self) -> None:
        """A stop came while we waited awake."""
        self._hits += 1
        if self._hits == _STEADY:
            self._hits = 0
            self._backoff = 32

    def still_soon(self) -> bool:
        """Whether to look once more; when not, the burst is over."""
        if monotonic_ns() - self._last < _SOON:
            return True
        self.awake = False
        self._quick = -self._backoff
        self._backoff = min(2 * self._backoff, _SELDOM)
        return False

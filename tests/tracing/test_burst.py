# SPDX-License-Identifier: MIT
"""Bursts of stops: when one begins and ends, and that nothing of a child is lost at its edges."""

import os
import signal
from collections.abc import Iterator

import pytest

from mlockwipe.tracing.burst import Burst


@pytest.fixture
def burst() -> Iterator[Burst]:
    """One that has begun, with its timer stopped."""
    handler = signal.getsignal(signal.SIGALRM)
    burst = Burst()
    while not burst.on:
        burst.stop_handled()
    signal.setitimer(signal.ITIMER_REAL, 0)
    yield burst
    burst.end()
    signal.signal(signal.SIGALRM, handler)


@pytest.fixture
def dead_child() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


def tick() -> None:
    """As the timer would, when nobody sleeps."""
    os.kill(os.getpid(), signal.SIGALRM)


def test_a_burst_begins_again_only_after_many_more_stops(burst: Burst) -> None:
    burst.end()
    burst.stop_handled()
    assert not burst.on


def test_what_was_found_is_left_to_be_waited_for(burst: Burst, dead_child: int) -> None:
    for _ in range(2):
        found = burst.next()
        assert found is not None
        assert found.tid == dead_child


def test_a_tick_is_the_time_for_everything_else(burst: Burst, dead_child: int) -> None:
    burst.stop_handled()
    tick()
    assert burst.next() is None
    assert burst.on
    found = burst.next()
    assert found is not None
    assert found.tid == dead_child


def test_a_child_that_waits_is_found_when_the_burst_ends(burst: Burst, dead_child: int) -> None:
    """Its signal may have been read before: nobody would wake us for it again."""
    burst.stop_handled()
    tick()
    assert burst.next() is None
    tick()
    found = burst.next()
    assert not burst.on
    assert found is not None
    assert found.tid == dead_child


def test_the_end_of_the_last_child_is_noticed_when_the_burst_ends(burst: Burst) -> None:
    pid = os.fork()  # to have no children
    if pid == 0:
        try:
            tick()
            burst.next()
            tick()
            burst.next()
        except ChildProcessError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_tick_ends_the_sleep(burst: Burst) -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert burst.next() is None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

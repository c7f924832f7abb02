# SPDX-License-Identifier: MIT
"""Waiting for one task has a bound, and what was half done with it is undone, at once or at its next stop."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from mlockwipe.linux import procfs, ptrace, wait
from mlockwipe.linux.mman import CLONE_VM
from mlockwipe.linux.wait import End, Stuck, TaskGone, TrapStop
from mlockwipe.memory.inject import BRIEFLY, Injection, unfinished
from mlockwipe.memory.instruction import system_call_instruction
from tests.support.traced import await_sleep, child, go_on_until, stop, stopped_child

_CLONE_VFORK = 0x4000


def bounded(body: Callable[[], object]) -> None:
    """Execute `body` in a process of its own whose waits are bounded, as those of a supervisor are."""

    def bounds() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        wait.bound_waits()
        body()

    with child(bounds) as pid:
        end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
        assert isinstance(end, End)
        assert end.status == 0


def counts() -> None:
    """Exit with the number of its SIGUSR1, at SIGUSR2."""
    count = [0]
    signal.signal(signal.SIGUSR1, lambda *_: count.append(0))
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(len(count)))
    while True:
        signal.pause()


def goes_on(pid: int) -> None:
    """A stopped task of `counts` is as it was."""
    ptrace.cont(pid)
    await_sleep(pid)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
        wait.await_stop(pid)
        ptrace.cont(pid, number)
    end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
    assert isinstance(end, End)
    assert end.status == 2


def injection(pid: int, *, is_ours: bool = False) -> Injection:
    return Injection(pid, *system_call_instruction(pid), is_ours=is_ours)


def sleeps() -> None:
    with child(signal.pause, 0) as pid:
        await_sleep(pid)
        began = time.monotonic()
        with pytest.raises(Stuck):
            wait.await_stop(pid)
        assert wait.SLEEPING <= time.monotonic() - began < 5
        stop(pid)


def spins() -> None:
    while True:
        pass


def works() -> None:
    wait._LONGEST = 1.0
    wait._RUNNABLE = wait.SLEEPING = 0.2
    with child(spins, 0) as pid:
        began = time.monotonic()
        with pytest.raises(Stuck):
            wait.await_stop(pid)
        assert time.monotonic() - began >= 1.0  # as long as it has time on a CPU
        stop(pid)


def comes_late() -> None:
    def stops() -> None:
        time.sleep(0.3)
        signal.raise_signal(signal.SIGUSR1)

    with child(stops, 0) as pid:
        assert wait.await_stop(pid).tid == pid
    with child(lambda: time.sleep(0.3), 0) as pid, pytest.raises(TaskGone):
        wait.await_stop(pid)


def is_hidden_by_others() -> None:
    """Another child's signals come all the time."""
    noise = os.fork()
    if noise == 0:
        while True:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            os.kill(os.getppid(), signal.SIGCHLD)
    try:
        sleeps()
    finally:
        os.kill(noise, signal.SIGKILL)
        os.waitpid(noise, 0)


@pytest.mark.parametrize("body", [sleeps, works, comes_late, is_hidden_by_others])
def test_a_task_that_does_not_stop_is_waited_for_as_long_as_is_right(body: Callable[[], None]) -> None:
    bounded(body)


def sleeps_in_an_injected_call() -> None:
    with stopped_child(counts) as pid:
        with pytest.raises(Stuck), injection(pid) as task:
            task.call("pause")
        assert not unfinished
        goes_on(pid)


def sleeps_and_can_not_be_stopped() -> None:
    """In vfork(2), until its child is gone: nothing but SIGKILL ends that."""
    with stopped_child(counts, ptrace.O_TRACECLONE | ptrace.O_TRACEVFORK) as pid:
        wait._UNINTERRUPTIBLE = 0.5
        with pytest.raises(Stuck), injection(pid) as task:
            task.call("clone", CLONE_VM | _CLONE_VFORK, 0, 0, 0, 0)
        assert list(unfinished) == [pid]
        assert procfs.stat_fields(pid)[0] == "D"
        (helper,) = procfs.children(pid)
        os.kill(helper, signal.SIGKILL)
        found = None
        while found is None:
            event = go_on_until(lambda event: event.tid == pid)
            assert not isinstance(event, End)
            wait.take(pid)
            found = unfinished[pid].finish(event)
        assert isinstance(found, TrapStop)
        assert not unfinished
        goes_on(pid)


def is_a_helper() -> None:
    with stopped_child(counts) as pid:
        began = time.monotonic()
        with pytest.raises(Stuck), injection(pid, is_ours=True) as task:
            task.patience = BRIEFLY
            task.call("pause")
        assert time.monotonic() - began < 2
        assert not unfinished
        with pytest.raises(TaskGone):
            task.call("pause")
        with pytest.raises(TaskGone):
            wait.await_stop(pid)


@pytest.mark.parametrize("body", [sleeps_in_an_injected_call, sleeps_and_can_not_be_stopped, is_a_helper])
def test_a_task_that_is_stuck_in_a_call_of_ours_is_left_as_it_was(body: Callable[[], None]) -> None:
    bounded(body)

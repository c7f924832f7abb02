# SPDX-License-Identifier: MIT
"""Calls that return EINTR after a stop, and that go on instead."""

import ctypes
import errno
import os
import select
import signal
from collections.abc import Iterator

import pytest

from mlockwipe.linux import ptrace, wait
from mlockwipe.linux.arch import NATIVE, Registers
from mlockwipe.linux.libc import sleeping
from mlockwipe.linux.wait import End, SignalStop, Stop, SyscallStop
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.tracing.restart import Restarts
from mlockwipe.tracing.task import Task
from tests.support.traced import go_on_until, stopped_child

_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND = 512, 513, 514  # include/linux/errno.h
EPOLL_WAIT = 232


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    pair = os.pipe()
    yield pair
    for fd in pair:
        os.close(fd)


def waits(fd: int, milliseconds: int = -1) -> None:
    """Exit with 7 for what epoll_wait(2) has found, 0 if its time was up, or its errno; Python's own hides EINTR."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    epoll = select.epoll()
    epoll.register(fd, select.EPOLLIN)
    found = sleeping.epoll_wait(epoll.fileno(), ctypes.create_string_buffer(12), 1, milliseconds)
    os._exit({1: 7, 0: 0}.get(found, ctypes.get_errno()))


def task_of(pid: int) -> Task:
    return Task(pid, pid, AddressSpace())


def status_at_end(pid: int) -> int:
    end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
    assert isinstance(end, End)
    return end.status


def go_on(restarts: Restarts, task: Task) -> Stop | End:
    """The next event of a task that is in no stop of a call which is made again."""
    while True:
        restarts.settle()
        found = wait.look()
        if found is None:
            continue
        if not isinstance(found, SyscallStop):
            return found
        restarts.at_call(task)


def test_a_call_that_a_stop_has_interrupted_goes_on(pipe: tuple[int, int]) -> None:
    with stopped_child(lambda: waits(pipe[0])) as pid:
        Restarts(transfers=True).at_stop(task_of(pid))
        ptrace.cont(pid)
        os.write(pipe[1], b"!")
        assert status_at_end(pid) == 7


def test_left_alone_it_returns_eintr(pipe: tuple[int, int]) -> None:
    with stopped_child(lambda: waits(pipe[0])) as pid:
        ptrace.cont(pid)
        assert status_at_end(pid) == errno.EINTR


def test_it_returns_eintr_where_a_handler_runs_all_the_same(pipe: tuple[int, int]) -> None:
    restarts = Restarts(transfers=True)
    with stopped_child(lambda: waits(pipe[0], 60_000), ptrace.O_TRACESYSGOOD) as pid:
        task = task_of(pid)
        os.kill(pid, signal.SIGUSR1)
        restarts.at_stop(task)
        restarts.go_on(task)
        stop = go_on(restarts, task)
        assert isinstance(stop, SignalStop)
        assert restarts.at_stop(task, stop.signal) == signal.SIGUSR1
        ptrace.cont(pid, signal.SIGUSR1)
        assert status_at_end(pid) == errno.EINTR


def test_it_ends_when_its_time_is_up_however_often_it_is_interrupted(pipe: tuple[int, int]) -> None:
    restarts = Restarts(transfers=True)
    with stopped_child(lambda: waits(pipe[0], 200), ptrace.O_TRACESYSGOOD) as pid:
        task, number = task_of(pid), 0
        while True:
            restarts.go_on(task, restarts.at_stop(task, number))
            os.kill(pid, signal.SIGURG)  # SIGWINCH is the test runner's own
            event = go_on(restarts, task)
            if isinstance(event, End):
                break
            number = event.signal if isinstance(event, SignalStop) else 0
        assert event.status == 0


def test_a_call_that_has_returned_is_left_alone() -> None:
    with stopped_child() as pid:  # in pause(2), which the kernel restarts by itself
        before = bytes(ptrace.get_registers(pid))
        Restarts(transfers=True).at_stop(task_of(pid))
        assert bytes(ptrace.get_registers(pid)) == before


def registers(number: int, result: int) -> Registers:
    made = Registers(orig_rax=number & 0xFFFFFFFFFFFFFFFF)
    made.set_result(result)
    return made


@pytest.mark.parametrize(
    ("number", "result", "afterwards"),
    [
        (EPOLL_WAIT, -errno.EINTR, -_ERESTARTNOHAND),
        (EPOLL_WAIT, 1, 1),
        (EPOLL_WAIT, -errno.EBADF, -errno.EBADF),
        (NATIVE.numbers["read"], -errno.EINTR, -_ERESTARTNOHAND),  # of a socket with SO_RCVTIMEO, or inotify
        (NATIVE.close, -errno.EINTR, -errno.EINTR),  # it has closed
        (-1, -errno.EINTR, -errno.EINTR),  # no call: a number that the program has in a register
        (NATIVE.numbers["mlock"], -_ERESTARTSYS, -_ERESTARTNOINTR),
        (NATIVE.numbers["mmap"], -_ERESTARTSYS, -_ERESTARTNOINTR),
        (NATIVE.numbers["mlock"], 0, 0),
        (NATIVE.numbers["read"], -_ERESTARTSYS, -_ERESTARTSYS),  # a handler may interrupt it
        (1, -_ERESTARTSYS, -_ERESTARTSYS),  # write, which has no name here
    ],
)
def test_what_is_restarted(number: int, result: int, afterwards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """mlock(2) knows no EINTR, whatever signal comes."""
    stopped = registers(number, result)
    written: list[Registers] = []
    monkeypatch.setattr(ptrace, "get_registers", lambda _: stopped)
    monkeypatch.setattr(ptrace, "set_registers", lambda _, new: written.append(new))
    monkeypatch.setattr(ptrace, "get_audit_arch", lambda _: NATIVE.audit_arch)
    Restarts(transfers=False).at_stop(task_of(1))
    assert [one.result for one in written] == ([afterwards] if result != afterwards else [])

# SPDX-License-Identifier: MIT
"""Calls that return EINTR after a stop, and that go on instead."""

import ctypes
import errno
import os
import select
import signal
from collections.abc import Iterator

import pytest

from mlockwipe.linux import ptrace
from mlockwipe.linux.arch import NATIVE, Registers
from mlockwipe.linux.libc import sleeping
from mlockwipe.linux.wait import End
from mlockwipe.tracing.restart import made_to_restart, restart_interrupted_call, restart_notified_call
from tests.support.traced import go_on_until, stopped_child

_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND = 512, 513, 514  # include/linux/errno.h
EPOLL_WAIT = 232


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    pair = os.pipe()
    yield pair
    for fd in pair:
        os.close(fd)


def waits(fd: int) -> None:
    """Exit with 7 for what epoll_wait(2) has found, or with its errno; Python's own would not let EINTR through."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    epoll = select.epoll()
    epoll.register(fd, select.EPOLLIN)
    found = sleeping.epoll_wait(epoll.fileno(), ctypes.create_string_buffer(12), 1, -1)
    os._exit(7 if found == 1 else ctypes.get_errno())


def status_at_end(pid: int) -> int:
    end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
    assert isinstance(end, End)
    return end.status


def test_a_call_that_a_stop_has_interrupted_goes_on(pipe: tuple[int, int]) -> None:
    with stopped_child(lambda: waits(pipe[0])) as pid:
        restart_interrupted_call(pid)
        ptrace.cont(pid)
        os.write(pipe[1], b"!")
        assert status_at_end(pid) == 7


def test_left_alone_it_returns_eintr(pipe: tuple[int, int]) -> None:
    with stopped_child(lambda: waits(pipe[0])) as pid:
        ptrace.cont(pid)
        assert status_at_end(pid) == errno.EINTR


def test_it_returns_eintr_where_a_handler_runs_all_the_same(pipe: tuple[int, int]) -> None:
    with stopped_child(lambda: waits(pipe[0])) as pid:
        os.kill(pid, signal.SIGUSR1)
        restart_interrupted_call(pid)
        ptrace.cont(pid)
        assert status_at_end(pid) == errno.EINTR


def test_a_call_that_has_returned_is_left_alone() -> None:
    with stopped_child() as pid:  # in pause(2), which the kernel restarts by itself
        before = bytes(ptrace.get_registers(pid))
        restart_interrupted_call(pid)
        restart_notified_call(pid)
        assert bytes(ptrace.get_registers(pid)) == before


def registers(number: int, result: int) -> Registers:
    made = Registers(orig_rax=number)
    made.set_result(result)
    return made


@pytest.mark.parametrize(
    ("number", "result", "afterwards"),
    [
        (EPOLL_WAIT, -errno.EINTR, -_ERESTARTNOHAND),
        (EPOLL_WAIT, 1, 1),
        (EPOLL_WAIT, -errno.EBADF, -errno.EBADF),
        (NATIVE.numbers["read"], -errno.EINTR, -errno.EINTR),  # only a handler makes it return that
    ],
)
def test_only_the_calls_that_return_eintr_without_a_handler_are_restarted(
    number: int, result: int, afterwards: int
) -> None:
    stopped = registers(number, result)
    assert made_to_restart(stopped) == (result != afterwards)
    assert stopped.result == afterwards


@pytest.mark.parametrize(
    ("number", "result", "afterwards"),
    [
        (NATIVE.numbers["mlock"], -_ERESTARTSYS, -_ERESTARTNOINTR),
        (NATIVE.numbers["mmap"], -_ERESTARTSYS, -_ERESTARTNOINTR),
        (NATIVE.numbers["mlock"], 0, 0),
        (NATIVE.numbers["read"], -_ERESTARTSYS, -_ERESTARTSYS),  # a handler may interrupt it
        (1, -_ERESTARTSYS, -_ERESTARTSYS),  # write, which has no name here
        (EPOLL_WAIT, -errno.EINTR, -_ERESTARTNOHAND),
    ],
)
def test_a_notified_lock_is_restarted_whatever_signal_comes(
    number: int, result: int, afterwards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = registers(number, result)
    written: list[Registers] = []
    monkeypatch.setattr(ptrace, "get_registers", lambda _: stopped)
    monkeypatch.setattr(ptrace, "set_registers", lambda _, new: written.append(new))
    restart_notified_call(1)
    assert [one.result for one in written] == ([afterwards] if result != afterwards else [])

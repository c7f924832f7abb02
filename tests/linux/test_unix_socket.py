# SPDX-License-Identifier: MIT
"""Messages and descriptors between two sockets: whole, in order, and with nothing left open by mistake."""

import errno
import os
import resource
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from mlockwipe.linux import unix_socket


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """Two connected sockets; a test that closes one takes it out."""
    ends = list(unix_socket.socketpair())
    yield ends
    for fd in ends:
        os.close(fd)


def open_fds() -> list[str]:
    return os.listdir("/proc/self/fd")


def test_messages_arrive_whole_and_in_order_both_ways(ends: list[int]) -> None:
    messages = [b"first", b"\0second\0", b"x" * 65536]
    for there, here in (ends, ends[::-1]):
        for message in messages:
            unix_socket.send(there, message)
        assert [unix_socket.receive(here, 65536) for _ in messages] == [(message, []) for message in messages]


def test_a_message_that_is_too_long_for_the_reader_is_cut_off(ends: list[int]) -> None:
    unix_socket.send(ends[0], b"abcdef")
    unix_socket.send(ends[0], b"next")
    assert unix_socket.receive(ends[1], 3) == (b"abc", [])
    assert unix_socket.receive(ends[1], 9) == (b"next", [])


@pytest.mark.parametrize("count", [1, 3, 8, 253])
def test_descriptors_arrive_beside_their_message(ends: list[int], count: int) -> None:
    here, there = os.pipe()
    before = open_fds()
    unix_socket.send(ends[0], b"with", (there,) * count)
    unix_socket.send(ends[0], b"without")
    message, fds = unix_socket.receive(ends[1], 100)
    assert (message, len(set(fds))) == (b"with", count)
    assert unix_socket.receive(ends[1], 100) == (b"without", [])
    for fd in fds:
        assert os.path.sameopenfile(fd, there)
        assert not os.get_inheritable(fd)
        os.close(fd)
    assert open_fds() == before
    os.close(here)
    os.close(there)


def test_more_descriptors_than_the_kernel_takes_are_an_error(ends: list[int]) -> None:
    with pytest.raises(OSError, match=r"sendmsg\(\d+\): ") as failed:
        unix_socket.send(ends[0], b"x", (0,) * 254)
    assert failed.value.errno == errno.EINVAL


def test_the_sockets_are_closed_on_exec(ends: list[int]) -> None:
    assert not any(os.get_inheritable(fd) for fd in ends)


def test_the_end_is_an_empty_message_after_all_others(ends: list[int]) -> None:
    unix_socket.send(ends[0], b"last")
    os.close(ends.pop(0))
    assert unix_socket.receive(ends[0], 10) == (b"last", [])
    assert unix_socket.receive(ends[0], 10) == (b"", [])


def test_nobody_at_the_other_end_is_a_broken_pipe_and_no_signal(ends: list[int]) -> None:
    os.close(ends.pop(0))
    handler = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pytest.raises(BrokenPipeError):
            unix_socket.send(ends[0], b"x")
    finally:
        signal.signal(signal.SIGPIPE, handler)


def test_a_signal_does_not_end_the_wait(ends: list[int]) -> None:
    handled = []

    def handle(number: int, frame: FrameType | None) -> None:
        handled.append(number)
        threading.Timer(0.02, unix_socket.send, (ends[0], b"after")).start()

    handler = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert unix_socket.receive(ends[1], 10) == (b"after", [])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert handled == [signal.SIGALRM]


def test_no_descriptor_left_is_said_with_what_was_attempted() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match=r"socketpair\(AF_UNIX, SOCK_SEQPACKET\): ") as failed:
            unix_socket.socketpair()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed.value.errno == errno.EMFILE

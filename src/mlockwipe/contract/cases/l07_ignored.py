# SPDX-License-Identifier: MIT
"""L7: a signal that the program ignores changes no call, however long that sleeps."""

import ctypes
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.program import Program
from mlockwipe.linux.libc import function

TIMEOUT = 0.4  # seconds
MUCH = 1 << 20  # bytes, far more than a pipe or a socket takes at once

_int, _pointer = ctypes.c_int, ctypes.c_void_p
_epoll_wait = function("epoll_wait", _int, _int, _pointer, _int, _int, sleeps=True)
_recv = function("recv", ctypes.c_ssize_t, _int, _pointer, ctypes.c_size_t, _int, sleeps=True)
_write = function("write", ctypes.c_ssize_t, _int, _pointer, ctypes.c_size_t, sleeps=True)


def _while_ignored(program: Program, call: Callable[[], int], *moments: float) -> tuple[int | str, float]:
    """What a call returns, and after how many seconds, while SIGURG comes at these moments."""
    program.secret()
    pid = os.getpid()

    def disturb() -> None:
        start = time.monotonic()
        for moment in moments:
            time.sleep(max(0.0, start + moment - time.monotonic()))
            os.kill(pid, signal.SIGURG)

    child = program.fork(disturb)
    start = time.monotonic()
    result = call()
    took = time.monotonic() - start
    name = errno.errorcode[ctypes.get_errno()] if result == -1 else result
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return name, took


def _often(seconds: float) -> list[float]:
    return [moment * 0.02 for moment in range(1, round(seconds / 0.02))]


def _sleep_in_epoll() -> int:
    import select

    with select.epoll() as epoll:
        return int(_epoll_wait(epoll.fileno(), ctypes.create_string_buffer(12), 1, round(TIMEOUT * 1000)))


@case("L7", "ignored-epoll", KEPT, "epoll_wait with a timeout, an ignored signal every 20 ms", shows=False)
def ignored_epoll(program: Program) -> None:
    result, took = _while_ignored(program, _sleep_in_epoll, *_often(3))
    program.check("epoll_wait", result, 0)
    program.check("in time", TIMEOUT <= took < 2, True)


@case("L7", "ignored-epoll-late", KEPT, "epoll_wait with a timeout, an ignored signal shortly before", shows=False)
def ignored_epoll_late(program: Program) -> None:
    result, took = _while_ignored(program, _sleep_in_epoll, TIMEOUT * 0.8)
    program.check("epoll_wait", result, 0)
    program.check("in time", TIMEOUT <= took < TIMEOUT * 1.6, True)


@case("L7", "ignored-recv", KEPT, "recv with SO_RCVTIMEO, an ignored signal every 20 ms", shows=False)
def ignored_recv(program: Program) -> None:
    first, _second = socket.socketpair()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 0, round(TIMEOUT * 1e6)))
    result, took = _while_ignored(
        program, lambda: int(_recv(first.fileno(), ctypes.create_string_buffer(8), 8, 0)), *_often(3)
    )
    program.check("recv", result, "EAGAIN")
    program.check("in time", TIMEOUT <= took < 2, True)


@case("L7", "ignored-write", KEPT, "a long write to a pipe, an ignored signal every 20 ms", shows=False)
def ignored_write(program: Program) -> None:
    read_end, write_end = os.pipe()

    def read() -> None:
        os.close(write_end)
        while os.read(read_end, 8192):
            time.sleep(0.002)

    program.fork(read)
    os.close(read_end)
    result, _ = _while_ignored(program, lambda: int(_write(write_end, bytes(MUCH), MUCH)), *_often(3))
    program.check("write", result, MUCH)


@case("L7", "ignored-waitall", KEPT, "recv with MSG_WAITALL, an ignored signal every 20 ms", shows=False)
def ignored_waitall(program: Program) -> None:
    first, second = socket.socketpair()

    def send() -> None:
        for _ in range(20):
            time.sleep(0.015)
            second.send(bytes(500))

    program.fork(send)
    buffer = ctypes.create_string_buffer(10000)
    result, _ = _while_ignored(
        program, lambda: int(_recv(first.fileno(), buffer, len(buffer), socket.MSG_WAITALL)), *_often(3)
    )
    program.check("recv", result, 10000)

# SPDX-License-Identifier: MIT
"""/dev/zero for a helper task, handed over by a socket.

The helper opens nothing by a path: at that place there may be nothing, a FIFO, or any file of the program's choice,
which may have its own root directory.
"""

import contextlib
import os
import stat
import struct

from mlockwipe.linux import unix_socket
from mlockwipe.linux.pidfd import get_descriptor
from mlockwipe.memory.inject import Injection

_AF_UNIX, _SOCK_DGRAM, _MSG_DONTWAIT = 1, 2, 0x40
_ZERO = os.makedev(1, 5)
_ROOM = 128  # bytes, of a received control message
_FIRST, _SECOND, _RECEIVED = 0, 1, 2  # the numbers that a task without any descriptor gives out
_own: int | None = None


def hand_over(task: Injection, memory_fd: int, room: int) -> int | None:
    """The number of /dev/zero in a task that has no descriptors; None where it can't be had.

    `room`: the address of memory to work with.
    """
    with contextlib.suppress(OSError):
        try:
            return _receive(task, memory_fd, room)
        finally:
            task.call("close_range", _FIRST, _SECOND, 0)
    return None


def _receive(task: Injection, memory_fd: int, room: int) -> int | None:
    if task.call("socketpair", _AF_UNIX, _SOCK_DGRAM, 0, room) < 0:
        return None
    to_it = get_descriptor(task.tid, _SECOND)
    try:
        unix_socket.send(to_it, b"0", (_dev_zero(),))
    finally:
        os.close(to_it)
    word = "Q" if task.abi.word == 8 else "I"
    header = struct.Struct(f"=9{word}")  # struct msghdr and a struct iovec
    vector = room + struct.calcsize(f"=7{word}")
    byte = control = room + header.size
    os.pwrite(memory_fd, header.pack(0, 0, vector, 1, control + 8, _ROOM, 0, byte, 1), room)
    if task.call("recvmsg", _FIRST, room, _MSG_DONTWAIT) != 1:
        return None
    received = get_descriptor(task.tid, _RECEIVED)
    try:
        status = os.fstat(received)
    finally:
        os.close(received)
    return _RECEIVED if stat.S_ISCHR(status.st_mode) and status.st_rdev == _ZERO else None


def _dev_zero() -> int:
    global _own
    if _own is None:
        _own = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    return _own

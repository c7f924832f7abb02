# SPDX-License-Identifier: MIT
"""unix(7): a pair of sockets that carry messages, and descriptors beside them (include/linux/socket.h).

Python's own socket module would do. It takes 4 ms to import, and every start of `mlockwipe run` would pay for that.
"""

import ctypes
import errno
import struct

from mlockwipe.linux.libc import checked, fail, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    _Room = ctypes.Array[ctypes.c_char]

_AF_UNIX = 1
_SOCK_SEQPACKET = 5
_SOCK_CLOEXEC = 0o2000000
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_MSG_DONTWAIT = 0x40
_MSG_NOSIGNAL = 0x4000
_MSG_CMSG_CLOEXEC = 0x40000000
_MOST_FDS = 253  # SCM_MAX_FD: the kernel takes no more in one message


class _Buffer(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


_CONTROL = struct.Struct("=Qii")  # struct cmsghdr: length with this header, level, type

_socketpair = function("socketpair", ctypes.c_int, *([ctypes.c_int] * 3), ctypes.c_void_p)
_sendmsg = function("sendmsg", ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, sleeps=True)
_recvmsg = function("recvmsg", ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, sleeps=True)


def socketpair() -> tuple[int, int]:
    """Two connected SOCK_SEQPACKET sockets, closed on exec: messages arrive whole, in order, or not at all."""
    ends = (ctypes.c_int * 2)()
    checked(
        _socketpair(_AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC, 0, ctypes.addressof(ends)),
        "socketpair(AF_UNIX, SOCK_SEQPACKET)",
    )
    return ends[0], ends[1]


def send(fd: int, data: bytes, fds: tuple[int, ...] = (), *, waits: bool = True) -> None:
    """Send one message; the other end gets duplicates of `fds`. BrokenPipeError when there is no other end.

    BlockingIOError instead of a wait for room, if it `waits` not.
    """
    control = b""
    if fds:
        length = _CONTROL.size + 4 * len(fds)
        control = _CONTROL.pack(length, _SOL_SOCKET, _SCM_RIGHTS) + struct.pack(f"={len(fds)}i", *fds)
    _transfer(
        _sendmsg,
        "sendmsg",
        fd,
        ctypes.create_string_buffer(data, len(data)),
        ctypes.create_string_buffer(control, len(control)),
        _MSG_NOSIGNAL if waits else _MSG_NOSIGNAL | _MSG_DONTWAIT,
    )


def receive(fd: int, largest: int) -> tuple[bytes, list[int]]:
    """The next message, cut off after `largest` bytes, and its descriptors, closed on exec. b"" at the end."""
    data = ctypes.create_string_buffer(largest)
    control = ctypes.create_string_buffer(_CONTROL.size + 4 * _MOST_FDS)
    length, control_length = _transfer(_recvmsg, "recvmsg", fd, data, control, _MSG_CMSG_CLOEXEC)
    fds: tuple[int, ...] = ()
    if control_length:  # one header, since nothing but descriptors was asked for
        size, _, _ = _CONTROL.unpack_from(control)
        fds = struct.unpack_from(f"={(size - _CONTROL.size) // 4}i", control, _CONTROL.size)
    return ctypes.string_at(data, length), list(fds)


def _transfer(
    call: "Callable[[int, int, int], int]", name: str, fd: int, data: "_Room", control: "_Room", flags: int
) -> tuple[int, int]:
    """The length of the message, and of what came beside it."""
    buffer = _Buffer(ctypes.addressof(data), len(data))
    message = _Message(
        buffers=ctypes.pointer(buffer), buffer_count=1, control=ctypes.addressof(control), control_length=len(control)
    )
    while (length := call(fd, ctypes.addressof(message), flags)) == -1:
        if ctypes.get_errno() != errno.EINTR:
            fail(f"{name}({fd})")
    return length, message.control_length

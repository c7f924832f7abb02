# SPDX-License-Identifier: MIT
"""What a descriptor of another process is, by a copy of it."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

from mlockwipe.linux.libc import checked, function
from mlockwipe.linux.pidfd import get_descriptor

# include/uapi/asm-generic/socket.h, include/linux/socket.h, include/linux/net.h
SO_TYPE = 3
SO_RCVTIMEO = 20
SO_SNDTIMEO = 21
SO_DOMAIN = 39
AF_UNIX = 1
SOCK_STREAM = 1
_SOL_SOCKET = 1

_getsockopt = function(
    "getsockopt", ctypes.c_int, *[ctypes.c_int] * 3, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)
)


@contextlib.contextmanager
def copied(pid: int, fd: int) -> Iterator[int]:
    """A copy, for the while. OSError when there is no such descriptor, or the process does not let us."""
    copy = get_descriptor(pid, fd & 0xFFFFFFFF)
    try:
        yield copy
    finally:
        os.close(copy)


def socket_option(fd: int, name: int) -> tuple[int, int]:
    """An option of a socket: a struct timeval as seconds and microseconds, an int as that and 0.

    OSError when it is no socket.
    """
    value = (ctypes.c_int64 * 2)()
    length = ctypes.c_uint32(ctypes.sizeof(value))
    checked(_getsockopt(fd, _SOL_SOCKET, name, ctypes.addressof(value), ctypes.byref(length)), "getsockopt()")
    return value[0], value[1]

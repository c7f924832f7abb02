# SPDX-License-Identifier: MIT
"""userfaultfd(2): page faults that a program handles itself (include/uapi/linux/userfaultfd.h)."""

import fcntl
import os
import struct

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, syscall

UFFDIO_MOVE = 0xC028AA05  # Linux 6.8
MOVE = struct.Struct("=5Q")  # struct uffdio_move: destination, source, length, mode, bytes moved

REGISTER_MISSING = 1
REGISTER_WRITE_PROTECT = 2
FEATURE_MOVE = 1 << 16

_API, _VERSION = 0xC018AA3F, 0xAA
_REGISTER = 0xC020AA00
_WRITE_PROTECT = 0xC018AA06  # Linux 5.7
_PROTECT, _DONT_WAKE = 1, 2
_USER_MODE_ONLY = 1
_SYS_USERFAULTFD = NATIVE.numbers["userfaultfd"]


def open_userfaultfd(features: int = 0) -> int:
    """A descriptor for the memory of this process. PermissionError or OSError(ENOSYS) where the kernel has none."""
    fd = checked(syscall(_SYS_USERFAULTFD, os.O_CLOEXEC | _USER_MODE_ONLY, 0, 0, 0, 0, 0), "userfaultfd()")
    try:
        fcntl.ioctl(fd, _API, struct.pack("=3Q", _VERSION, features, 0))
    except OSError:
        os.close(fd)
        raise
    return fd


def register(fd: int, start: int, length: int, mode: int) -> None:
    fcntl.ioctl(fd, _REGISTER, struct.pack("=4Q", start, length, mode, 0))


def move(fd: int, new: int, old: int, length: int) -> None:
    """Move pages to a registered place where there are none."""
    fcntl.ioctl(fd, UFFDIO_MOVE, MOVE.pack(new, old, length, 0, 0))


def write_protect(fd: int, start: int, length: int, *, protect: bool) -> None:
    """Let writes fault, or no more; who waits in such a fault goes on waiting."""
    fcntl.ioctl(fd, _WRITE_PROTECT, struct.pack("=3Q", start, length, _PROTECT if protect else _DONT_WAKE))

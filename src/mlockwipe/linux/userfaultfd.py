# SPDX-License-Identifier: MIT
"""userfaultfd(2): as much of it as moving pages, holding up faults and protecting from writes takes.

The structures are packed here and handed to ioctl(2) by whoever has the descriptor.
Source: include/uapi/linux/userfaultfd.h, Linux 6.8.
"""

import fcntl
import os
import struct

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, syscall

FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | 1  # UFFD_USER_MODE_ONLY: all that vm.unprivileged_userfaultfd=0 leaves

API, REGISTER, UNREGISTER, WAKE, MOVE = 0xC018AA3F, 0xC020AA00, 0x8010AA01, 0x8010AA02, 0xC028AA05
WRITE_PROTECT = 0xC018AA06
MODE_MISSING, MODE_WRITE_PROTECT = 1, 2
FEATURE_MOVE = 1 << 16
_API = 0xAA
_DONTWAKE, _ALLOW_SRC_HOLES = 1, 2  # of MOVE
_PROTECT, _LIFT_AND_DONT_WAKE = 1, 2  # of WRITE_PROTECT

MOVE_ARGUMENT = struct.Struct("=4Qq")  # struct uffdio_move: to, from, length, mode, bytes moved
_MOVED_AT = 32
_MOVED = struct.Struct("=q")


def open_own(features: int = 0) -> int:
    """A descriptor for the memory of this process. OSError where the kernel has none or refuses it."""
    fd = checked(syscall(NATIVE.numbers["userfaultfd"], FLAGS, 0, 0, 0, 0, 0), "userfaultfd()")
    try:
        fcntl.ioctl(fd, API, api(features))
    except OSError:
        os.close(fd)
        raise
    return fd


def api(features: int = FEATURE_MOVE) -> bytes:
    return struct.pack("=3Q", _API, features, 0)


def registration(start: int, length: int, mode: int = MODE_MISSING) -> bytes:
    return struct.pack("=4Q", start, length, mode, 0)


def place(start: int, length: int) -> bytes:
    """The argument of UNREGISTER and WAKE."""
    return struct.pack("=2Q", start, length)


def write_protection(start: int, length: int, *, protect: bool) -> bytes:
    """Let writes fault, or no more; who waits in such a fault goes on waiting."""
    return struct.pack("=3Q", start, length, _PROTECT if protect else _LIFT_AND_DONT_WAKE)


def move(to: int, start: int, length: int) -> bytes:
    return MOVE_ARGUMENT.pack(to, start, length, _DONTWAKE | _ALLOW_SRC_HOLES, 0)


def moved(memory_fd: int, at: int) -> int:
    """How many bytes the move that lies at an address in memory has moved, or a negative errno."""
    return int(_MOVED.unpack(os.pread(memory_fd, _MOVED.size, at + _MOVED_AT))[0])

# SPDX-License-Identifier: MIT
"""userfaultfd(2): as much of it as moving pages and holding up faults takes.

The structures are packed here and handed to ioctl(2) by whoever has the descriptor.
Source: include/uapi/linux/userfaultfd.h, Linux 6.8.
"""

import os
import struct

FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | 1  # UFFD_USER_MODE_ONLY: all that vm.unprivileged_userfaultfd=0 leaves

API, REGISTER, UNREGISTER, WAKE, MOVE = 0xC018AA3F, 0xC020AA00, 0x8010AA01, 0x8010AA02, 0xC028AA05
_API, _FEATURE_MOVE = 0xAA, 1 << 16
_MODE_MISSING = 1
_DONTWAKE, _ALLOW_SRC_HOLES = 1, 2

_MOVED_AT = 32
_MOVED = struct.Struct("=q")


def api() -> bytes:
    return struct.pack("=3Q", _API, _FEATURE_MOVE, 0)


def registration(start: int, length: int) -> bytes:
    return struct.pack("=4Q", start, length, _MODE_MISSING, 0)


def place(start: int, length: int) -> bytes:
    """The argument of UNREGISTER and WAKE."""
    return struct.pack("=2Q", start, length)


def move(to: int, start: int, length: int) -> bytes:
    return struct.pack("=4Qq", to, start, length, _DONTWAKE | _ALLOW_SRC_HOLES, 0)


def moved(memory_fd: int, at: int) -> int:
    """How many bytes the move that lies at an address in memory has moved, or a negative errno."""
    return int(_MOVED.unpack(os.pread(memory_fd, _MOVED.size, at + _MOVED_AT))[0])

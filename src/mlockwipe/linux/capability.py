# SPDX-License-Identifier: MIT
"""capset(2): what a process may do beyond an ordinary user (include/uapi/linux/capability.h)."""

import ctypes
import struct

from mlockwipe.linux.libc import checked, function

CAP_IPC_LOCK = 14

_VERSION_3 = 0x20080522
_SETS = struct.Struct("=6I")  # effective, permitted, inheritable of capabilities 0 to 31, then of 32 to 63
NONE = struct.pack("=Ii", _VERSION_3, 0) + bytes(_SETS.size)  # the two arguments of capset that give up everything
SETS_AT = 8  # where in it the second begins

_capget = function("capget", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_capset = function("capset", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def drop(capability: int) -> None:
    """Give up one of the capabilities 0 to 31; nothing happens where it was not held."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    sets = ctypes.create_string_buffer(_SETS.size)
    checked(_capget(header, sets), "capget()")
    effective, permitted, inheritable, *high = _SETS.unpack(sets.raw)
    keep = ~(1 << capability)
    low = (effective & keep, permitted & keep, inheritable & keep)
    checked(
        _capset(header, ctypes.create_string_buffer(_SETS.pack(*low, *high))),
        f"capset(without {capability})",
    )

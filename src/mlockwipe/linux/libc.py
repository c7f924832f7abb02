# SPDX-License-Identifier: MIT
"""The C library, loaded once, and the one way in which a failed call becomes an OSError."""

import ctypes
import os

TYPE_CHECKING = False  # typing takes longer to import than the rest of this file
if TYPE_CHECKING:
    from typing import Any, NoReturn

# PyDLL keeps the interpreter lock: none of the calls bound through it sleeps, and dropping the lock and taking it
# again costs more than most of them. Calls that may sleep belong to `sleeping`.
libc = ctypes.PyDLL(None, use_errno=True)
sleeping = ctypes.CDLL(None, use_errno=True)


def fail(attempted: str, errno: int | None = None) -> "NoReturn":
    """Raise the OSError of the last call (or of `errno`), saying what was attempted."""
    number = ctypes.get_errno() if errno is None else errno
    raise OSError(number, f"{attempted}: {os.strerror(number)}")


def checked(result: int, attempted: str) -> int:
    """`result`, or an OSError when it is -1."""
    if result == -1:
        fail(attempted)
    return result


def function(name: str, restype: "Any", *argtypes: "Any", sleeps: bool = False) -> "Any":
    """The function `name` of the C library with its types set."""
    bound = getattr(sleeping if sleeps else libc, name)
    bound.restype = restype
    bound.argtypes = argtypes
    return bound


# syscall(2) takes longs; without declared types ctypes would pass 32-bit ints, the seventh argument among them.
syscall = function("syscall", ctypes.c_long, *([ctypes.c_long] * 7))

# SPDX-License-Identifier: MIT
"""clone(2) and exit(2), below the C library's and the interpreter's own ideas of a process."""

import ctypes

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, function, syscall

_SYS_CLONE = NATIVE.numbers["clone"]
_SYS_EXIT = NATIVE.numbers["exit"]

_pointer = ctypes.c_void_p
# Both leave the interpreter's lock to the other threads: the one waits for a vfork child, the other never
# returns.
_clone = function("clone", ctypes.c_int, _pointer, _pointer, ctypes.c_int, _pointer, sleeps=True)
_unshare = function("unshare", ctypes.c_int, ctypes.c_int)
_sleeping_syscall = function("syscall", ctypes.c_long, *([ctypes.c_long] * 7), sleeps=True)


def clone(code: int, stack: int, flags: int, argument: int = 0) -> int:
    """A task that runs the machine code at `code` on the stack that ends at `stack`; its number."""
    return checked(_clone(code, stack, flags, argument), f"clone({flags:#x})")


def raw_fork(exit_signal: int) -> int:
    """fork as the kernel does it, with none of the C library's and Python's handlers: 0 in the child."""
    return checked(syscall(_SYS_CLONE, exit_signal, 0, 0, 0, 0, 0), "clone()")


def exit_thread() -> None:
    """End the calling thread alone, by exit(2). Does not return."""
    _sleeping_syscall(_SYS_EXIT, 0, 0, 0, 0, 0, 0)


def unshare(namespaces: int) -> None:
    """Leave the given namespaces for new ones, CLONE_NEWPID for the children (unshare(2))."""
    checked(_unshare(namespaces), f"unshare({namespaces:#x})")

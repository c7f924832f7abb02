# SPDX-License-Identifier: MIT
"""A copy of another process's descriptor: pidfd_getfd(2), Linux 5.6."""

import os

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, syscall

_SYS_PIDFD_GETFD = NATIVE.numbers["pidfd_getfd"]


def copy_descriptor(pid: int, fd: int) -> int:
    """OSError when the process is gone, it is a thread, or it does not let us: the right to trace it is needed."""
    pidfd = os.pidfd_open(pid)
    try:
        return checked(syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0, 0, 0, 0), f"pidfd_getfd({pid}, {fd})")
    finally:
        os.close(pidfd)

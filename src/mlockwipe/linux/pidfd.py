# SPDX-License-Identifier: MIT
"""Descriptors of another process (pidfd_getfd(2), Linux 5.6)."""

import os

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, syscall

_SYS_PIDFD_GETFD = NATIVE.numbers["pidfd_getfd"]


def get_descriptor(pid: int, fd: int) -> int:
    """A descriptor of our own of what another process has open as `fd`.

    OSError when the process is gone, it is a thread, or it does not let us: that takes the right to trace it.
    """
    pidfd = os.pidfd_open(pid)
    try:
        return checked(syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0, 0, 0, 0), f"pidfd_getfd({pid}, {fd})")
    finally:
        os.close(pidfd)

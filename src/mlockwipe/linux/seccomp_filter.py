# SPDX-License-Identifier: MIT
"""seccomp(2): installing a filter with a listener (include/uapi/linux/seccomp.h)."""

import ctypes
import struct

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import fail, syscall

_SYS_SECCOMP = NATIVE.numbers["seccomp"]
SET_MODE_FILTER = 1
FLAG_TSYNC = 1 << 0
FLAG_NEW_LISTENER = 1 << 3
_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19


def install_with_listener(program: bytes) -> int:
    """Install a filter in the calling thread and return its notification listener.

    The waits of notified calls are killable only once a listener has received them (Linux 5.19): a signal can't
    turn a lock into EINTR. Needs no_new_privs or CAP_SYS_ADMIN (EACCES); EBUSY: the process is under another
    listener already; EINVAL: kernel older than 5.19.
    """
    code = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    flags = FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE_RECV
    buffer = ctypes.create_string_buffer(descriptor, len(descriptor))
    fd: int = syscall(_SYS_SECCOMP, SET_MODE_FILTER, flags, ctypes.addressof(buffer), 0, 0, 0)
    if fd == -1:
        fail("seccomp(SECCOMPSET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER)")
    return fd

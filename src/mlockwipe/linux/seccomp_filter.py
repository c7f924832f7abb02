# SPDX-License-Identifier: MIT
"""seccomp(2): installing a filter with a listener, and whether there is one (include/uapi/linux/seccomp.h)."""

import ctypes
import os
import struct

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import fail, syscall

_SYS_SECCOMP = NATIVE.numbers["seccomp"]
_SYS_SECCOMP_GENERIC = 277  # include/uapi/asm-generic/unistd.h: of aarch64, riscv64 and newer ones
SET_MODE_STRICT = 0
SET_MODE_FILTER = 1
SECCOMP_MODE_STRICT = 1  # for prctl(2)
_GET_NOTIF_SIZES = 3
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
        fail("seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER)")
    return fd


def notification_sizes() -> tuple[int, int, int]:
    """How long the kernel's notification, answer and struct seccomp_data are, in bytes. OSError: EINVAL before Linux
    5.0, ENOSYS without CONFIG_SECCOMP_FILTER, EPERM (or what its author chose) under a container's profile."""
    number = _SYS_SECCOMP if os.uname().machine == "x86_64" else _SYS_SECCOMP_GENERIC
    sizes = (ctypes.c_uint16 * 3)()
    if syscall(number, _GET_NOTIF_SIZES, 0, ctypes.addressof(sizes), 0, 0, 0) == -1:
        fail("seccomp(SECCOMP_GET_NOTIF_SIZES)")
    return sizes[0], sizes[1], sizes[2]

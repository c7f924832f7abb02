# SPDX-License-Identifier: MIT
"""A seccomp filter that kills, in the form in which the kernel takes it (include/uapi/linux/seccomp.h)."""

import ctypes
import struct

from mlockwipe.linux.libc import checked, syscall
from mlockwipe.linux.prctl import set_no_new_privileges

_SYS_SECCOMP = 317
_SET_MODE_FILTER = 1
_RET_KILL_PROCESS = 0x80000000
_RET_ALLOW = 0x7FFF0000
_SYS_GETPPID = 110

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # include/uapi/linux/bpf_common.h


def kill_at_getppid() -> None:
    """From now on getppid() ends this process."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, 0),  # the number of the system call
            (_JUMP_IF_EQUAL, 0, 1, _SYS_GETPPID),
            (_RETURN, 0, 0, _RET_KILL_PROCESS),
            (_RETURN, 0, 0, _RET_ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    fprog = ctypes.create_string_buffer(filter_, len(filter_))
    set_no_new_privileges()
    checked(syscall(_SYS_SECCOMP, _SET_MODE_FILTER, 0, ctypes.addressof(fprog), 0, 0, 0), "seccomp()")

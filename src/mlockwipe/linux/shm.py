# SPDX-License-Identifier: MIT
"""System V shared memory: shmctl(2) (include/uapi/asm-generic/shmbuf.h)."""

import ctypes

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import syscall

SHM_RND = 0o20000
SHM_REMAP = 0o40000
IPC_SHMAT = 21  # of ipc(2), the one call that i386 has for all of it

_SYS_SHMCTL = NATIVE.numbers["shmctl"]
_IPC_STAT = 2


def segment_size(shmid: int) -> int:
    """The size of a segment in bytes, 0 when it can't be had (another IPC namespace, no permission)."""
    buffer = (ctypes.c_uint64 * 32)()
    if syscall(_SYS_SHMCTL, shmid, _IPC_STAT, ctypes.addressof(buffer), 0, 0, 0) == -1:
        return 0
    return buffer[6]  # struct shmid64_ds: struct ipc64_perm of 48 bytes, then shm_segsz

# SPDX-License-Identifier: MIT
"""Whose a process is that has another user in a user namespace (ioctl_ns(2), include/uapi/linux/nsfs.h)."""

import fcntl
import os
import struct
from contextlib import suppress

from mlockwipe.linux.read_file import in_proc, proc_directory

_GET_PARENT = 0xB702
_GET_OWNER = 0xB704
_DEEPEST = 33  # the kernel nests no more than 32 of them


def owner(pid: int, user: int) -> int:
    """Who is behind a process of `user`: the maker of its user namespace, if that is below ours and not root's.

    In there everybody has tens of thousands of users.
    """
    with suppress(OSError):
        ours = os.stat("self/ns/user", dir_fd=proc_directory()).st_ino
        namespace = in_proc(f"{pid}/ns/user")
        try:
            for _ in range(_DEEPEST):
                if os.fstat(namespace).st_ino == ours:
                    return user
                parent = fcntl.ioctl(namespace, _GET_PARENT)
                if os.fstat(parent).st_ino == ours:
                    os.close(parent)
                    made_by = bytearray(4)
                    fcntl.ioctl(namespace, _GET_OWNER, made_by)
                    return struct.unpack("=I", made_by)[0] or user
                os.close(namespace)
                namespace = parent
        finally:
            os.close(namespace)
    return user

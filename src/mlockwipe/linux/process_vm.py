# SPDX-License-Identifier: MIT
"""Copying from and to the memory of another process, from page to page.

What is read or written through /proc/PID/mem passes a page of the kernel's own, which is freed as it is (mem_rw in
fs/proc/base.c, Linux 6.1 to 6.18): a copy of a secret that nobody wipes. process_vm_readv(2) and process_vm_writev(2)
leave none. They demand what /proc/PID/mem does not: that the memory may be read or written by its own program, and is
not that of an undumpable one.
"""

import ctypes

from mlockwipe.linux.libc import function


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))


_ARGUMENTS = (
    ctypes.c_int,
    *(ctypes.POINTER(_Vector), ctypes.c_ulong) * 2,
    ctypes.c_ulong,
)
_readv = function("process_vm_readv", ctypes.c_ssize_t, *_ARGUMENTS)
_writev = function("process_vm_writev", ctypes.c_ssize_t, *_ARGUMENTS)


def read_into(pid: int, address: int, room: memoryview) -> int:
    """Copy len(room) bytes at `address` of a process. How many could be: up to the first page that can't be read."""
    return max(0, int(_readv(pid, _vector(_place(room), room), 1, _vector(address, room), 1, 0)))


def write(pid: int, address: int, content: memoryview) -> int:
    """Copy `content`, which is writable itself, to `address` of a process. How much could be, as in `read_into`."""
    return max(0, int(_writev(pid, _vector(_place(content), content), 1, _vector(address, content), 1, 0)))


def _vector(base: int, view: memoryview) -> _Vector:
    return _Vector(base, len(view))


def _place(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))

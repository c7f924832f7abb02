# SPDX-License-Identifier: MIT
"""The beginning of Python programs that lock a page, as many do it: by ctypes."""

LOCK = """
import ctypes, mmap, os
libc = ctypes.CDLL(None)
def lock():
    room = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(room)))
    libc.mlock(address, 4096)
    return room, address
"""

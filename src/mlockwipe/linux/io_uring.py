# SPDX-License-Identifier: MIT
"""io_uring: as much of it as starts writes (include/uapi/linux/io_uring.h)."""

import ctypes
import struct

from mlockwipe.linux import mm
from mlockwipe.linux.libc import checked, syscall

_SYS_IO_URING_SETUP = 425
_SYS_IO_URING_ENTER = 426

_OFF_SQES = 0x10000000
_OP_WRITE = 23
_ENTRY = struct.Struct("=BBHiQQIIQ24x")  # struct io_uring_sqe
_PARAMS = struct.Struct(
    "=10I10I10I"
)  # struct io_uring_params, the last fields of both offsets being 64 bits wide


class Ring:
    """A ring for up to `entries` requests, of which no completion is ever read.

    OSError: ENOSYS where the kernel has none, EPERM where kernel.io_uring_disabled or a seccomp filter
    forbids it.
    """

    def __init__(self, entries: int) -> None:
        params = ctypes.create_string_buffer(_PARAMS.size)
        self._fd = checked(
            syscall(_SYS_IO_URING_SETUP, entries, ctypes.addressof(params), 0, 0, 0, 0),
            f"io_uring_setup({entries})",
        )
        fields = _PARAMS.unpack(params.raw)
        self._entries = fields[0]
        self._tail, self._array = fields[11], fields[16]
        prot = mm.PROT_READ | mm.PROT_WRITE
        self._ring = mm.mmap(0, self._array + 4 * self._entries, prot, mm.MAP_SHARED, self._fd)
        self._requests = mm.mmap(0, _ENTRY.size * self._entries, prot, mm.MAP_SHARED, self._fd, _OFF_SQES)

    def submit_writes(self, fd: int, parts: "list[tuple[int, int, int]]") -> int:
        """Start a write of each (address, length, offset in the file). Returns how many the kernel took."""
        for index, (address, length, offset) in enumerate(parts):
            entry = _ENTRY.pack(_OP_WRITE, 0, 0, fd, offset, address, length, 0, index)
            ctypes.memmove(self._requests + index * _ENTRY.size, entry, len(entry))
            ctypes.c_uint32.from_address(self._ring + self._array + 4 * index).value = index
        # A release store on x86-64: the entries above are visible before the tail is.
        ctypes.c_uint32.from_address(self._ring + self._tail).value = len(parts)
        return checked(
            syscall(_SYS_IO_URING_ENTER, self._fd, len(parts), 0, 0, 0, 0),
            f"io_uring_enter({len(parts)} writes)",
        )

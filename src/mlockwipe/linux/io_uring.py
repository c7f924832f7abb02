# SPDX-License-Identifier: MIT
"""io_uring: as much of it as one submission and registered buffers take (include/uapi/linux/io_uring.h)."""

import ctypes
import functools
import os
import struct

from mlockwipe.linux import mm, mman
from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, function

_SYS_IO_URING_SETUP = NATIVE.numbers["io_uring_setup"]
_SYS_IO_URING_ENTER = NATIVE.numbers["io_uring_enter"]

_SYS_IO_URING_REGISTER = NATIVE.numbers["io_uring_register"]

SETUP_SQPOLL = 2
_OFF_SQES = 0x10000000
_OP_WRITE_FIXED = 5
_OP_WRITE = 23
_OP_MADVISE = 25
_ENTER_GETEVENTS = 1
_REGISTER_BUFFERS, _UNREGISTER_BUFFERS = 0, 1
_ENTRY = struct.Struct("=BBHiQQIIQ24x")  # struct io_uring_sqe
# struct io_uring_params; the last field of each of its two tables of offsets is 64 bits wide
_PARAMS = struct.Struct("=10I10I10I")

_syscall = function("syscall", ctypes.c_long, *([ctypes.c_long] * 7), sleeps=True)


@functools.cache
def counters() -> tuple[int, int]:
    """Where in the mapping of a ring its two 32-bit counters are: of the requests that the kernel has taken, and of
    those that it has completed. Where they are differs between kernels; the kernel tells it with every ring.

    OSError: as of `Ring`.
    """
    fd, fields = _setup(1)
    os.close(fd)
    return fields[10], fields[21]


def _setup(entries: int, flags: int = 0) -> tuple[int, tuple[int, ...]]:
    """A new ring's descriptor, and the fields of struct io_uring_params."""
    params = ctypes.create_string_buffer(_PARAMS.pack(0, 0, flags, *[0] * 27), _PARAMS.size)
    fd = checked(
        _syscall(_SYS_IO_URING_SETUP, entries, ctypes.addressof(params), 0, 0, 0, 0), f"io_uring_setup({entries})"
    )
    return fd, _PARAMS.unpack(params.raw)


class Ring:
    """A ring for one submission of up to `entries` requests.

    OSError: ENOSYS where the kernel has none, EPERM where kernel.io_uring_disabled or a seccomp filter
    forbids it.
    """

    def __init__(self, entries: int, flags: int = 0) -> None:
        self._fd, fields = _setup(entries, flags)
        self._tail, self._array, self._completions = fields[11], fields[16], fields[25]
        # Linux 5.4 and later map both rings at once; the array is what lies last in it.
        prot = mman.PROT_READ | mman.PROT_WRITE
        self._ring_size, self._requests_size = self._array + 4 * fields[0], _ENTRY.size * fields[0]
        self._ring = mm.mmap(0, self._ring_size, prot, mman.MAP_SHARED, self._fd)
        self._requests = mm.mmap(0, self._requests_size, prot, mman.MAP_SHARED, self._fd, _OFF_SQES)

    def submit_writes(self, fd: int, parts: "list[tuple[int, int, int]]") -> int:
        """Start a write of each (address, length, offset in the file). Returns how many the kernel took."""
        return self._submit(
            [_ENTRY.pack(_OP_WRITE, 0, 0, fd, where, at, length, 0, 0) for at, length, where in parts]
        )

    def madvise(self, address: int, length: int, advice: int) -> int:
        """madvise by the kernel's own thread. Returns 0, or a negative errno, when it is done."""
        self._submit([_ENTRY.pack(_OP_MADVISE, 0, 0, -1, 0, address, length, advice, 0)], wait=1)
        return self._result()

    def _result(self) -> int:
        completion = self._ring + self._completions  # struct io_uring_cqe: user data, result, flags
        return ctypes.c_int32.from_address(completion + 8).value

    def unmap(self) -> None:
        """It stays, with what was submitted, as long as its descriptor does."""
        mm.munmap(self._ring, self._ring_size)
        mm.munmap(self._requests, self._requests_size)

    def close(self) -> None:
        """Not after `unmap`."""
        self.unmap()
        os.close(self._fd)

    def register(self, address: int, length: int) -> None:
        """Have the kernel keep hold of pages, for any number of requests."""
        vector = (ctypes.c_uint64 * 2)(address, length)
        arguments = _REGISTER_BUFFERS, ctypes.addressof(vector), 1, 0, 0
        checked(_syscall(_SYS_IO_URING_REGISTER, self._fd, *arguments), "io_uring_register(IORING_REGISTER_BUFFERS)")

    def write_registered(self, fd: int, address: int, length: int) -> int:
        """Write from registered pages, by the address that they had then. Returns what pwrite(2) does, or -errno."""
        self._submit([_ENTRY.pack(_OP_WRITE_FIXED, 0, 0, fd, 0, address, length, 0, 0)], wait=1)
        return self._result()

    def unregister(self) -> None:
        arguments = _UNREGISTER_BUFFERS, 0, 0, 0, 0
        checked(
            _syscall(_SYS_IO_URING_REGISTER, self._fd, *arguments), "io_uring_register(IORING_UNREGISTER_BUFFERS)"
        )

    def _submit(self, entries: "list[bytes]", wait: int = 0) -> int:
        for index, entry in enumerate(entries):
            ctypes.memmove(self._requests + index * _ENTRY.size, entry, len(entry))
            ctypes.c_uint32.from_address(self._ring + self._array + 4 * index).value = index
        # A release store on x86-64: the entries above are visible before the tail is.
        ctypes.c_uint32.from_address(self._ring + self._tail).value = len(entries)
        flags = _ENTER_GETEVENTS if wait else 0
        return checked(
            _syscall(_SYS_IO_URING_ENTER, self._fd, len(entries), wait, flags, 0, 0),
            f"io_uring_enter({len(entries)})",
        )

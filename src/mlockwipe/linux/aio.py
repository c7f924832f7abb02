# SPDX-License-Identifier: MIT
"""Native asynchronous I/O: io_setup(2) and its kin (include/uapi/linux/aio_abi.h)."""

import ctypes
import struct

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, syscall

_SYS_IO_SETUP = NATIVE.numbers["io_setup"]
_SYS_IO_SUBMIT = NATIVE.numbers["io_submit"]

_CMD_PWRITE = 1
_REQUEST = struct.Struct("=QIIHhIQQqQII")  # struct iocb


def setup(requests: int) -> int:
    """A context for so many requests at a time."""
    context = ctypes.c_ulong()
    checked(syscall(_SYS_IO_SETUP, requests, ctypes.addressof(context), 0, 0, 0, 0), f"io_setup({requests})")
    return context.value


def submit_writes(context: int, fd: int, parts: "list[tuple[int, int, int]]") -> int:
    """Start a write of each (address, length, offset in the file). Returns how many the kernel took."""
    requests = [
        ctypes.create_string_buffer(
            _REQUEST.pack(0, 0, 0, _CMD_PWRITE, 0, fd, address, length, offset, 0, 0, 0), _REQUEST.size
        )
        for address, length, offset in parts
    ]
    pointers = (ctypes.c_void_p * len(requests))(*(ctypes.addressof(request) for request in requests))
    return checked(
        syscall(_SYS_IO_SUBMIT, context, len(requests), ctypes.addressof(pointers), 0, 0, 0),
        f"io_submit({len(requests)} writes)",
    )

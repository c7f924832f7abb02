# SPDX-License-Identifier: MIT
"""I/O that still reads from an address space whose program is dead, and how its end is awaited."""

import contextlib
import os
import sys
import time
from collections.abc import Callable

from mlockwipe.linux import io_uring, procfs
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory.proc_files import Files

_PATIENCE = 5.0  # seconds; requests that can wait for ever, on sockets say, are cancelled by the exit itself


def end_in_flight(files: Files, call: Callable[[str, int], int]) -> None:
    """Wait for I/O that still reads from an address space: a program that is killed must not write zeros to its disk.

    Native AIO is ended when the last user of the memory goes (exit_aio in fs/aio.c), and the keeper is one, so
    io_destroy(2) is called on its rings, with `call`, which has a task in there execute it. io_uring at exit cancels
    what it can and does not wait for the rest: the counters of the ring, which is mapped, show when that is done.
    """
    text = procfs.read_all(files.maps).decode(errors="surrogateescape")
    mappings = list(procfs.parse_maps(text))
    with contextlib.suppress(TaskGone):
        for vma in mappings:
            if vma.name.startswith("/[aio]"):
                call("io_destroy", vma.start)
    deadline = time.monotonic() + _PATIENCE
    for vma in mappings:
        if vma.name == "anon_inode:[io_uring]" and vma.offset == 0:
            while _requests_in_flight(files.memory, vma.start) and time.monotonic() < deadline:
                time.sleep(0.001)


def _requests_in_flight(memory_fd: int, ring: int) -> int:
    """The requests of an io_uring that the kernel has taken and not completed; 0 when its ring can't be read, and 1
    when nobody knows how to read it.
    """
    try:
        at_taken, at_completed = io_uring.counters()
    except OSError:
        return 1
    try:
        taken, completed = (
            int.from_bytes(os.pread(memory_fd, 4, ring + at), sys.byteorder) for at in (at_taken, at_completed)
        )
    except OSError:
        return 0
    in_flight = (taken - completed) % (1 << 32)
    return in_flight if in_flight < 1 << 31 else 0  # more completions than requests: multishot

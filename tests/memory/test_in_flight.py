# SPDX-License-Identifier: MIT
"""I/O that still reads a program's memory when it is released: how much of it there is."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlockwipe.linux import io_uring, mm, mman, procfs
from mlockwipe.linux.io_uring import Ring
from mlockwipe.memory.in_flight import _requests_in_flight

PAGE = mm.PAGE_SIZE


def ring(entries: int) -> Ring:
    try:
        return Ring(entries)
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")


def in_flight() -> int:
    """Of all rings of this process."""
    rings = [
        vma.start
        for vma in procfs.parse_maps(Path("/proc/self/maps").read_text())
        if vma.name == "anon_inode:[io_uring]" and vma.offset == 0
    ]
    assert rings
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        return sum(_requests_in_flight(memory, at) for at in rings)
    finally:
        os.close(memory)


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """What is written to it must wait for a reader."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write_end, bytes(PAGE))
    os.set_blocking(write_end, True)
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_a_request_is_in_flight_until_it_is_completed() -> None:
    at = mm.mmap(0, PAGE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    submitting = ring(3)
    assert in_flight() == 0
    with full_pipe() as (read_end, write_end):
        assert submitting.submit_writes(write_end, [(at, PAGE, 0)] * 3) == 3
        assert in_flight() == 3
        while in_flight():
            assert os.read(read_end, 1 << 20)
            ctypes.CDLL(None).sched_yield()


def test_a_request_that_was_not_submitted_is_not_in_flight() -> None:
    written = ring(3)
    ctypes.c_uint32.from_address(written._ring + written._tail).value = 3
    assert in_flight() == 0


def test_where_nobody_tells_how_to_read_a_ring_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ring(1)

    def refused() -> tuple[int, int]:
        raise PermissionError

    assert in_flight() == 0
    monkeypatch.setattr(io_uring, "counters", refused)
    assert in_flight() >= 1

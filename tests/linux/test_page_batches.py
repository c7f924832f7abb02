# SPDX-License-Identifier: MIT
"""Pages that a fork shared are written in place once their other user is gone, wherever references to them wait."""

import array
import ctypes
import os

import pytest

from mlockwipe.linux import mm, mman
from mlockwipe.linux.page_batches import drain_page_batches

PAGES = 40  # more than a batch holds, on Linux 6.12 31: the rest waits
SIZE = PAGES * mm.PAGE_SIZE
PR_SET_THP_DISABLE = 41
prctl = ctypes.CDLL(None).prctl

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root sees the numbers of page frames"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it takes two CPUs"),
]


def frames(address: int) -> list[int]:
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        entries = array.array("Q", os.pread(pagemap.fileno(), PAGES * 8, address // mm.PAGE_SIZE * 8))
    return [entry & (1 << 55) - 1 for entry in entries]


def moved(drained: bool, forbidden: bool = False) -> int:
    """How many pages are copied when the child writes what its parent, on another CPU, has copied before.

    `forbidden`: huge pages, to the child.
    """
    everywhere = os.sched_getaffinity(0)
    one, other = sorted(everywhere)[:2]
    address = mm.mmap(0, SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    begin, told = os.pipe(), os.pipe()
    os.sched_setaffinity(0, [one])
    try:
        mm.mlock(address, SIZE)
        ctypes.memset(address, 1, SIZE)
        child = os.fork()
        if child == 0:
            try:
                os.sched_setaffinity(0, [other])
                os.read(begin[0], 1)
                if forbidden:
                    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
                if drained:
                    drain_page_batches()
                before = frames(address)
                ctypes.memset(address, 0, SIZE)
                os.write(told[1], bytes([sum(a != b for a, b in zip(before, frames(address), strict=True))]))
            finally:
                os._exit(0)
        ctypes.memset(address, 2, SIZE)
        os.write(begin[1], b"\n")
        (count,) = os.read(told[0], 1)
        os.waitpid(child, 0)
        return count
    finally:
        os.sched_setaffinity(0, everywhere)
        mm.munmap(address, SIZE)
        for fd in (*begin, *told):
            os.close(fd)


def test_a_drain_lets_the_last_user_write_in_place() -> None:
    assert any(moved(drained=False) for _ in range(20))  # or nothing waits in batches here, and this proves nothing
    assert [moved(drained=True) for _ in range(20)] == [0] * 20
    assert [moved(drained=True, forbidden=True) for _ in range(20)] == [0] * 20

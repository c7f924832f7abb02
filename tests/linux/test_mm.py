# SPDX-License-Identifier: MIT
"""The memory calls: they do what they are named after, and say what they attempted when they can't."""

import errno
import os
from collections.abc import Callable

import pytest

from mlockwipe.linux import mm, mman

PAGE = mm.PAGE_SIZE
READ_WRITE = mman.PROT_READ | mman.PROT_WRITE
PRIVATE = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS


@pytest.mark.parametrize(
    ("call", "number", "attempted"),
    [
        (lambda: mm.mmap(0, 0, 3, PRIVATE), errno.EINVAL, "mmap(0x0, 0, 3, 0x22, -1, 0)"),
        (lambda: mm.mmap(0, PAGE, 3, mman.MAP_PRIVATE, 999), errno.EBADF, "mmap(0x0, 4096, 3, 0x2, 999, 0)"),
        (lambda: mm.munmap(1, PAGE), errno.EINVAL, "munmap(0x1, 4096)"),
        (lambda: mm.mremap(1, PAGE, PAGE), errno.EINVAL, "mremap(0x1, 4096, 4096, 0, 0x0)"),
        (lambda: mm.mprotect(PAGE, PAGE, 0), errno.ENOMEM, "mprotect(0x1000, 4096, 0)"),
        (lambda: mm.mlock(PAGE, PAGE), errno.ENOMEM, "mlock(0x1000, 4096)"),
        (lambda: mm.mlock2(PAGE, PAGE, 64), errno.EINVAL, "mlock2(0x1000, 4096, 64)"),
        (lambda: mm.mlockall(64), errno.EINVAL, "mlockall(64)"),
        (lambda: mm.munlock(PAGE, PAGE), errno.ENOMEM, "munlock(0x1000, 4096)"),
        (lambda: mm.madvise(PAGE, PAGE, 999), errno.EINVAL, "madvise(0x1000, 4096, 999)"),
        (lambda: mm.mincore(PAGE, PAGE), errno.ENOMEM, "mincore(0x1000, 4096)"),
        (lambda: mm.vmsplice(999, PAGE, PAGE), errno.EBADF, "vmsplice(999, 0x1000, 4096)"),
        (lambda: mm.shmget(0), errno.EINVAL, "shmget(0)"),
        (lambda: mm.shmat(-1), errno.EINVAL, "shmat(-1, 0x0, 0o0)"),
        (lambda: mm.shmdt(PAGE), errno.EINVAL, "shmdt(0x1000)"),
        (lambda: mm.shm_remove(-1), errno.EINVAL, "shmctl(-1, IPC_RMID)"),
        (lambda: mm.process_mrelease(999), errno.EBADF, "process_mrelease(999)"),
    ],
)
def test_an_error_says_what_was_attempted(call: Callable[[], object], number: int, attempted: str) -> None:
    with pytest.raises(OSError) as refused:
        call()
    assert refused.value.errno == number
    assert refused.value.strerror == f"{attempted}: {os.strerror(number)}"


def test_pages_are_resident_when_they_are_locked() -> None:
    at = mm.mmap(0, 4 * PAGE, READ_WRITE, PRIVATE)
    assert mm.mincore(at, 4 * PAGE) == [False] * 4
    mm.mlock2(at + PAGE, 2 * PAGE, mman.MLOCK_ONFAULT)
    assert mm.mincore(at, 4 * PAGE) == [False] * 4
    mm.mlock(at + PAGE, 2 * PAGE)
    assert mm.mincore(at, 4 * PAGE) == [False, True, True, False]
    mm.munmap(at, 4 * PAGE)


def test_moved_pages_are_elsewhere() -> None:
    at = mm.mmap(0, 2 * PAGE, READ_WRITE, PRIVATE)
    room = mm.mmap(0, 2 * PAGE, mman.PROT_NONE, PRIVATE)
    assert mm.mremap(at, 2 * PAGE, 2 * PAGE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, room) == room
    with pytest.raises(OSError, match="mincore"):
        mm.mincore(at, PAGE)
    mm.munmap(room, 2 * PAGE)


def test_the_end_of_the_heap_is_where_it_is() -> None:
    assert mm.brk() == mm.brk()
    assert mm.brk(PAGE) == mm.brk()  # refused without an error

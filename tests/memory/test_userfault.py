# SPDX-License-Identifier: MIT
"""Pages that a userfaultfd of the program protects from being written; this process stands for the program."""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator

import pytest

from mlockwipe.linux import mm, mman, procfs, userfaultfd
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.memory.address_space import AddressSpace, Held
from mlockwipe.memory.calls import Call
from mlockwipe.memory.journal import SaveArea
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.proc_files import Files

PAGES = 4
SIZE = PAGES * PAGE_SIZE
SECRET = b"s" * SIZE


@pytest.fixture
def fd() -> Iterator[int]:
    try:
        fd = userfaultfd.open_own()
    except OSError as error:
        pytest.skip(f"this kernel lets nobody have a userfaultfd: {error.strerror}")
    yield fd
    os.close(fd)


@pytest.fixture
def at(fd: int) -> Iterator[int]:
    """The address of pages of which the middle is protected."""
    at = mm.mmap(0, SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    ctypes.memmove(at, SECRET, SIZE)
    registration = userfaultfd.registration(at, SIZE, userfaultfd.MODE_WRITE_PROTECT)
    fcntl.ioctl(fd, userfaultfd.REGISTER, registration)
    protection = userfaultfd.write_protection(at + PAGE_SIZE, 2 * PAGE_SIZE, protect=True)
    fcntl.ioctl(fd, userfaultfd.WRITE_PROTECT, protection)
    yield at
    mm.munmap(at, SIZE)


@pytest.fixture
def space(at: int) -> Iterator[AddressSpace]:
    space = AddressSpace()
    keeper = Keeper(os.getpid(), NATIVE, 0)
    keeper.files = Files(os.getpid())
    space.state = Held(keeper, None, stack_top=0)
    space.tids.add(os.getpid())
    space.sensitive.ranges.add(at, at + SIZE)
    yield space
    keeper.files.close()


def protected(space: AddressSpace, at: int) -> list[tuple[int, int]]:
    assert space.held is not None
    return procfs.resident(space.held.files.pagemap, at, at + SIZE)[1]


@pytest.mark.parametrize("result", [0, -errno.EPERM])
def test_the_protection_is_lifted_for_a_wipe_and_comes_back_if_the_call_fails(
    result: int, space: AddressSpace, at: int
) -> None:
    middle = [(at + PAGE_SIZE, at + 3 * PAGE_SIZE)]
    assert protected(space, at) == middle
    unmap = Call("munmap", (at, SIZE, 0, 0, 0, 0))
    under_way = space.begin(unmap, space.released(unmap, os.getpid()), SaveArea(), lambda: None)
    assert under_way.failure is None
    assert under_way.wiped_pages == PAGES
    assert ctypes.string_at(at, SIZE) == bytes(SIZE)
    assert protected(space, at) == []
    descriptors = len(os.listdir("/proc/self/fd"))
    space.end(under_way, result)
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1
    assert ctypes.string_at(at, SIZE) == (SECRET if result else bytes(SIZE))
    assert protected(space, at) == (middle if result else [])


def test_where_nobody_can_lift_it_that_is_said(space: AddressSpace, at: int) -> None:
    space.tids.clear()
    unmap = Call("munmap", (at, SIZE, 0, 0, 0, 0))
    under_way = space.begin(unmap, space.released(unmap, os.getpid()), SaveArea(), lambda: None)
    assert str(under_way.failure) == "a userfaultfd that no task of it has open protects them"
    space.end(under_way, 0)

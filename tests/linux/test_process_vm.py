# SPDX-License-Identifier: MIT
"""Copying from and to another process's memory, as far as its own program may."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from mlockwipe.linux import mm, mman, process_vm
from mlockwipe.linux.mm import PAGE_SIZE

SIZE = 3 * PAGE_SIZE
CONTENT = bytes(range(256)) * (SIZE // 256)


@pytest.fixture
def address() -> Iterator[int]:
    """Three pages with CONTENT, of which the last can't be written and not be read."""
    address = mm.mmap(0, SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    ctypes.memmove(address, CONTENT, SIZE)
    mm.mprotect(address + 2 * PAGE_SIZE, PAGE_SIZE, mman.PROT_NONE)
    yield address
    mm.munmap(address, SIZE)


@pytest.fixture
def child(address: int) -> Iterator[int]:
    """A process that waits, with a copy of those pages."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write)
            os.read(read, 1)
            os._exit(0 if ctypes.string_at(address, PAGE_SIZE) == CONTENT[:PAGE_SIZE] else 7)
        finally:
            os._exit(1)
    os.close(read)
    yield pid
    os.close(write)
    os.waitpid(pid, 0)


def test_it_copies_up_to_the_first_page_that_the_program_can_not_reach(address: int, child: int) -> None:
    room = memoryview(bytearray(SIZE))
    assert process_vm.read_into(child, address, room) == 2 * PAGE_SIZE
    assert room[: 2 * PAGE_SIZE] == CONTENT[: 2 * PAGE_SIZE]
    assert not any(room[2 * PAGE_SIZE :])
    new = memoryview(bytearray(b"n" * SIZE))
    assert process_vm.write(child, address, new) == 2 * PAGE_SIZE
    assert process_vm.read_into(child, address, room) == 2 * PAGE_SIZE
    assert room[: 2 * PAGE_SIZE] == new[: 2 * PAGE_SIZE]
    assert ctypes.string_at(address, PAGE_SIZE) == CONTENT[:PAGE_SIZE]  # of this process


def test_of_a_process_that_is_gone_it_copies_nothing(address: int) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    room = memoryview(bytearray(SIZE))
    assert process_vm.read_into(pid, address, room) == 0
    assert process_vm.write(pid, address, room) == 0

# SPDX-License-Identifier: MIT
"""Content that is kept while a call is under way; this process stands for the program."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from mlockwipe.linux import mm, mman
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.memory.journal import SaveArea
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.undo import Saved

PAGES = 4
SECRET = b"".join(bytes([page + 1]) * PAGE_SIZE for page in range(PAGES))


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper(os.getpid(), NATIVE, 0)
    keeper.files = Files(os.getpid())
    yield keeper
    keeper.files.close()


@pytest.fixture
def pages() -> Iterator[int]:
    """The address of four pages, each of a content of its own."""
    at = mm.mmap(0, PAGES * PAGE_SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    ctypes.memmove(at, SECRET, len(SECRET))
    yield at
    mm.munmap(at, PAGES * PAGE_SIZE)


@pytest.fixture
def area() -> SaveArea:
    """A small one: what is taken of it is locked, and so resident."""
    area = SaveArea()
    area.size = 8 * PAGE_SIZE
    return area


def page(number: int) -> bytes:
    return SECRET[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]


def content(at: int) -> bytes:
    return ctypes.string_at(at, PAGES * PAGE_SIZE)


def is_clear(area: SaveArea) -> bool:
    room = area.take(area.size)  # None when something is still taken
    return room is not None and bytes(room).count(0) == len(room)


def test_what_was_saved_is_brought_back_where_it_was(keeper: Keeper, area: SaveArea, pages: int) -> None:
    saved = Saved(keeper, area)
    saved.save([(pages, pages + PAGE_SIZE), (pages + 2 * PAGE_SIZE, pages + 4 * PAGE_SIZE)])
    assert saved
    ctypes.memset(pages, 0, len(SECRET))
    saved.bring_back()
    assert content(pages) == page(0) + bytes(PAGE_SIZE) + page(2) + page(3)


@pytest.mark.parametrize(("first", "last"), [(0, 4), (0, 1), (1, 3), (3, 4), (2, 2), (0, 3)])
def test_a_part_alone_is_brought_back(keeper: Keeper, area: SaveArea, pages: int, first: int, last: int) -> None:
    saved = Saved(keeper, area)
    saved.save([(pages, pages + 2 * PAGE_SIZE), (pages + 2 * PAGE_SIZE, pages + 4 * PAGE_SIZE)])
    ctypes.memset(pages, 0, len(SECRET))
    saved.bring_back(pages + first * PAGE_SIZE, pages + last * PAGE_SIZE)
    assert content(pages) == b"".join(page(one) if first <= one < last else bytes(PAGE_SIZE) for one in range(PAGES))


def test_nothing_is_brought_back_to_a_page_that_is_gone(keeper: Keeper, area: SaveArea, pages: int) -> None:
    saved = Saved(keeper, area)
    saved.save([(pages, pages + PAGES * PAGE_SIZE)])
    mm.madvise(pages, PAGE_SIZE, mman.MADV_DONTNEED)
    mm.munmap(pages + 3 * PAGE_SIZE, PAGE_SIZE)
    ctypes.memset(pages + PAGE_SIZE, 0, 2 * PAGE_SIZE)
    saved.bring_back()
    assert ctypes.string_at(pages, 3 * PAGE_SIZE) == bytes(PAGE_SIZE) + page(1) + page(2)


def test_discarding_clears_what_was_saved_and_gives_the_room_back(keeper: Keeper, area: SaveArea, pages: int) -> None:
    saved = Saved(keeper, area)
    saved.save([(pages, pages + PAGES * PAGE_SIZE)])
    assert area.take(area.size) is None
    saved.discard()
    assert not saved
    assert is_clear(area)


def test_what_was_discarded_is_not_brought_back(keeper: Keeper, area: SaveArea, pages: int) -> None:
    saved = Saved(keeper, area)
    saved.save([(pages, pages + PAGES * PAGE_SIZE)])
    saved.discard()
    ctypes.memset(pages, 0, len(SECRET))
    saved.bring_back()
    assert content(pages) == bytes(len(SECRET))


def test_nothing_is_saved_where_there_is_no_room_for_all(keeper: Keeper, area: SaveArea, pages: int) -> None:
    others = area.take(area.size - 2 * PAGE_SIZE)
    assert others is not None
    saved = Saved(keeper, area)
    saved.save([(pages, pages + PAGE_SIZE), (pages + PAGE_SIZE, pages + PAGES * PAGE_SIZE)])
    assert not saved
    area.give_back(others)
    assert is_clear(area)
    saved.bring_back()
    assert content(pages) == SECRET

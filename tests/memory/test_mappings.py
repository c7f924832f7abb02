# SPDX-License-Identifier: MIT
"""What the kernel says of the mappings of this process."""

import errno
import os
from collections.abc import Iterator

import pytest

from mlockwipe.linux import mm, mman, procfs
from mlockwipe.linux.arch import PAGE_SIZE, TASK_SIZE
from mlockwipe.memory.mappings import KernelMappings
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import RangeSet

PAGES = 6
_RW = mman.PROT_READ | mman.PROT_WRITE


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files(os.getpid())
    yield files
    files.close()


@pytest.fixture
def mappings(files: Files) -> KernelMappings:
    return KernelMappings(files, stack(files)[-1].end)


@pytest.fixture
def pages() -> Iterator[int]:
    """The address of private pages; the third is missing, and the last one shared."""
    at = mm.mmap(0, PAGES * PAGE_SIZE, _RW, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    last = at + (PAGES - 1) * PAGE_SIZE
    mm.mmap(last, PAGE_SIZE, _RW, mman.MAP_SHARED | mman.MAP_ANONYMOUS | mman.MAP_FIXED)
    mm.munmap(at + 2 * PAGE_SIZE, PAGE_SIZE)
    yield at
    mm.munmap(at, PAGES * PAGE_SIZE)


def named(files: Files, name: str) -> list[procfs.Vma]:
    return [vma for vma in procfs.vmas(files.maps, 0, TASK_SIZE) if vma.name == name]


def stack(files: Files) -> list[procfs.Vma]:
    return named(files, "[stack]")


def test_what_is_mapped_has_its_holes_and_ends_where_it_was_asked_to(mappings: KernelMappings, pages: int) -> None:
    found = RangeSet(mappings.mapped(pages + PAGE_SIZE, pages + 4 * PAGE_SIZE))
    assert list(found) == [
        (pages + PAGE_SIZE, pages + 2 * PAGE_SIZE),
        (pages + 3 * PAGE_SIZE, pages + 4 * PAGE_SIZE),
    ]


def test_what_is_locked_is_what_the_kernel_flags_within_the_range(mappings: KernelMappings, pages: int) -> None:
    assert mappings.locked(pages, pages + PAGES * PAGE_SIZE) == []
    mm.mlock(pages, 2 * PAGE_SIZE)
    mm.mlock(pages + 4 * PAGE_SIZE, PAGE_SIZE)
    assert mappings.locked(pages + PAGE_SIZE, pages + 5 * PAGE_SIZE) == [
        (pages + PAGE_SIZE, pages + 2 * PAGE_SIZE),
        (pages + 4 * PAGE_SIZE, pages + 5 * PAGE_SIZE),
    ]


def test_what_is_private_is_all_but_what_is_shared(mappings: KernelMappings, pages: int) -> None:
    found = RangeSet(mappings.private())
    assert found.within(pages, pages + PAGES * PAGE_SIZE) == [
        (pages, pages + 2 * PAGE_SIZE),
        (pages + 3 * PAGE_SIZE, pages + 5 * PAGE_SIZE),
    ]


# the stack


def room_under(files: Files, address: int) -> int:
    """Where the mapping ends that is the next one below an address."""
    return max(vma.end for vma in procfs.vmas(files.maps, 0, address))


@pytest.fixture(params=["one mapping", "several mappings"])
def lowest(request: pytest.FixtureRequest, files: Files) -> Iterator[int]:
    """Where the stack begins. Of several mappings, only the one where it began has the name."""
    vma = stack(files)[0]
    if request.param == "several mappings":
        mm.mlock(vma.start, PAGE_SIZE)
        assert stack(files)[0].start > vma.start
    yield vma.start
    mm.munlock(vma.start, PAGE_SIZE)


def test_the_stack_is_private_with_the_room_that_it_may_grow_into(
    files: Files, mappings: KernelMappings, lowest: int
) -> None:
    room = room_under(files, lowest)
    assert room < lowest
    assert not RangeSet(mappings.private()).gaps(room, stack(files)[-1].end)


def test_only_the_lowest_part_of_the_stack_has_room_below(
    files: Files, mappings: KernelMappings, lowest: int
) -> None:
    end = stack(files)[-1].end
    assert mappings.room_below(lowest) == room_under(files, lowest)
    assert mappings.room_below(lowest + PAGE_SIZE) == lowest + PAGE_SIZE
    assert mappings.room_below(end - PAGE_SIZE) == end - PAGE_SIZE


def test_what_is_no_stack_has_no_room_below(files: Files, mappings: KernelMappings, pages: int) -> None:
    assert mappings.room_below(pages) == pages
    assert mappings.room_below(pages + 3 * PAGE_SIZE) == pages + 3 * PAGE_SIZE


def test_nothing_is_said_of_a_stack_that_is_not_known(files: Files) -> None:
    start = stack(files)[0].start
    assert KernelMappings(files, stack_top=0).room_below(start) == start


# what the kernel refuses to unmap


def test_sealed_memory_is_not_unmapped(mappings: KernelMappings) -> None:
    # For the rest of this process's life, as nobody can unmap it.
    at = mm.mmap(0, 3 * PAGE_SIZE, _RW, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    assert not mappings.refuse_unmap([(at, at + 3 * PAGE_SIZE)])
    try:
        mm.mseal(at + PAGE_SIZE, PAGE_SIZE)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        pytest.skip("mseal(2) is there from Linux 6.10 on")
    assert mappings.refuse_unmap([(at, at + 3 * PAGE_SIZE)])
    assert mappings.refuse_unmap([(0, PAGE_SIZE), (at + PAGE_SIZE, at + 2 * PAGE_SIZE)])
    assert not mappings.refuse_unmap([(at, at + PAGE_SIZE), (at + 2 * PAGE_SIZE, at + 3 * PAGE_SIZE)])


def test_nothing_is_unmapped_for_certain_where_another_mapping_may_be_one_too_many(
    files: Files, mappings: KernelMappings, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = [(pages, pages + PAGE_SIZE)]
    assert not mappings.refuse_unmap(part)
    monkeypatch.setattr(procfs, "sysctl", lambda name: {"vm/max_map_count": "1"}[name])
    assert mappings.refuse_unmap(part)

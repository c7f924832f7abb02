# SPDX-License-Identifier: MIT
"""An address space at the calls that lock and release memory; this process stands for the program."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Sequence

import pytest

from mlockwipe.linux import mm, mman, process_vm
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.memory import address_space, wipe
from mlockwipe.memory.address_space import AddressSpace, CallUnderWay, Held
from mlockwipe.memory.calls import Call
from mlockwipe.memory.journal import SaveArea
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.undo import Saved

SECRET = b"s" * PAGE_SIZE
PIDFD_SELF = -10000 & 0xFFFFFFFF  # PIDFD_SELF_THREAD


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    space = AddressSpace()
    keeper = Keeper(os.getpid(), NATIVE, 0)
    keeper.files = Files(os.getpid())
    space.state = Held(keeper, None, stack_top=0)
    space.tids.add(os.getpid())
    yield space
    keeper.files.close()


@pytest.fixture
def pages() -> Iterator[int]:
    """The address of four pages of secret."""
    at = mm.mmap(0, 4 * PAGE_SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    ctypes.memmove(at, 4 * SECRET, 4 * PAGE_SIZE)
    yield at
    mm.munmap(at, 4 * PAGE_SIZE)


def content(at: int) -> bytes:
    return ctypes.string_at(at, 4 * PAGE_SIZE)


def call(name: str, *arguments: int) -> Call:
    return Call(name, (*arguments, 0, 0, 0, 0)[:6])


def begin(space: AddressSpace, call: Call, area: SaveArea) -> CallUnderWay:
    return space.begin(call, space.released(call, os.getpid()), area, lambda: None)


def concerned(space: AddressSpace, call: Call) -> list[tuple[int, int]]:
    return space.concerned(call, space.released(call, os.getpid()))


def is_clear(area: SaveArea) -> bool:
    room = area.take(SaveArea.SIZE)  # None when something is still taken
    return room is not None and bytes(room).count(0) == len(room)


# a wipe that fails


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second page and what comes after it can't be wiped."""

    def clear(keeper: Keeper, runs: Sequence[wipe.Run], *, dying: bool) -> int:
        os.pwrite(keeper.files.memory, bytes(PAGE_SIZE), runs[0][1][0])
        raise OSError(errno.EIO, "refused")

    monkeypatch.setattr(wipe, "clear", clear)


@pytest.mark.usefixtures("failing")
def test_what_a_failed_wipe_saved_is_cleared_when_the_call_returns(space: AddressSpace, pages: int) -> None:
    area = SaveArea()
    space.sensitive.ranges.add(pages, pages + 4 * PAGE_SIZE)
    pending = begin(space, call("munmap", pages, 4 * PAGE_SIZE), area)
    assert pending.failure is not None
    space.end(pending, 0)
    assert is_clear(area)
    assert not space.sensitive.ranges


@pytest.mark.usefixtures("failing")
def test_what_a_failed_wipe_wrote_is_undone_when_the_call_fails(space: AddressSpace, pages: int) -> None:
    area = SaveArea()
    space.sensitive.ranges.add(pages, pages + 4 * PAGE_SIZE)
    pending = begin(space, call("munmap", pages, 4 * PAGE_SIZE), area)
    assert content(pages) == bytes(PAGE_SIZE) + 3 * SECRET
    space.end(pending, -errno.ENOMEM)
    assert content(pages) == 4 * SECRET
    assert is_clear(area)
    assert list(space.sensitive.ranges) == [(pages, pages + 4 * PAGE_SIZE)]


def test_what_was_saved_in_part_is_cleared(space: AddressSpace, pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset > pages:
            raise OSError(errno.EIO, "refused")
        buffers[0][:] = SECRET
        return PAGE_SIZE

    area = SaveArea()
    for page in (0, 2):
        space.sensitive.ranges.add(pages + page * PAGE_SIZE, pages + (page + 1) * PAGE_SIZE)
    monkeypatch.setattr(process_vm, "read_into", lambda *_: 0)
    monkeypatch.setattr(os, "preadv", preadv)
    pending = begin(space, call("munmap", pages, 4 * PAGE_SIZE), area)
    assert pending.failure is not None
    assert is_clear(area)
    assert content(pages) == 4 * SECRET


# what passes /proc/PID/mem leaves a copy in a page of the kernel's


@pytest.mark.parametrize("protection", [mman.PROT_READ | mman.PROT_WRITE, mman.PROT_READ, mman.PROT_NONE])
def test_what_is_saved_and_brought_back_passes_no_page_of_the_kernel_where_the_program_can_reach_it(
    space: AddressSpace, pages: int, monkeypatch: pytest.MonkeyPatch, protection: int
) -> None:
    through_the_kernel = set()

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        through_the_kernel.add("read")
        return read(fd, buffers, offset)

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if any(data):
            through_the_kernel.add("written")
        return write(fd, data, offset)

    read, write = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "pwrite", pwrite)
    area = SaveArea()
    space.sensitive.ranges.add(pages, pages + 4 * PAGE_SIZE)
    mm.mprotect(pages, 4 * PAGE_SIZE, protection)
    pending = begin(space, call("munmap", pages, 4 * PAGE_SIZE), area)
    space.end(pending, -errno.ENOMEM)
    mm.mprotect(pages, 4 * PAGE_SIZE, mman.PROT_READ | mman.PROT_WRITE)
    assert content(pages) == 4 * SECRET
    assert (
        through_the_kernel
        == {
            mman.PROT_READ | mman.PROT_WRITE: set(),
            mman.PROT_READ: {"written"},
            mman.PROT_NONE: {"read", "written"},
        }[protection]
    )


def test_what_can_be_saved_in_part_only_is_not_taken_for_saved(
    space: AddressSpace, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = SaveArea()
    space.sensitive.ranges.add(pages, pages + 4 * PAGE_SIZE)
    monkeypatch.setattr(process_vm, "read_into", lambda *_: PAGE_SIZE)
    monkeypatch.setattr(os, "preadv", lambda *_: PAGE_SIZE)
    pending = begin(space, call("munmap", pages, 4 * PAGE_SIZE), area)
    assert pending.failure is not None
    assert content(pages) == 4 * SECRET
    assert is_clear(area)


# locks whose outcome nobody watches


@contextlib.contextmanager
def locked(at: int, length: int) -> Iterator[None]:
    mm.mlock(at, length)
    try:
        yield
    finally:
        mm.munlock(at, length)


def release(space: AddressSpace, at: int, length: int) -> int:
    """The pages that are wiped for a munmap that is then refused."""
    area = SaveArea()
    pending = begin(space, call("munmap", at, length), area)
    space.end(pending, -errno.ENOMEM)
    return pending.wiped_pages


def test_what_of_an_unwatched_lock_was_locked_is_wiped(space: AddressSpace, pages: int) -> None:
    assert space.lock_unwatched(call("mlock", pages, 4 * PAGE_SIZE))
    with locked(pages + PAGE_SIZE, 2 * PAGE_SIZE):
        assert release(space, pages, 4 * PAGE_SIZE) == 2
    assert list(space.sensitive.ranges) == [(pages + PAGE_SIZE, pages + 3 * PAGE_SIZE)]


def test_nothing_of_an_unwatched_lock_that_failed_is_wiped(space: AddressSpace, pages: int) -> None:
    assert space.lock_unwatched(call("mlock", pages, 4 * PAGE_SIZE))
    assert release(space, pages, 4 * PAGE_SIZE) == 0
    assert not space.sensitive.ranges


def test_what_a_fork_passed_on_stays_sensitive_under_an_unwatched_lock(space: AddressSpace, pages: int) -> None:
    space.sensitive.ranges.add(pages, pages + PAGE_SIZE)
    space.lock_unwatched(call("mlock", pages, 2 * PAGE_SIZE))
    assert release(space, pages, 4 * PAGE_SIZE) == 1


def test_munlock_ends_an_unwatched_lock(space: AddressSpace, pages: int) -> None:
    area = SaveArea()
    space.lock_unwatched(call("mlock", pages, 4 * PAGE_SIZE))
    pending = begin(space, call("munlock", pages, 4 * PAGE_SIZE), area)
    space.end(pending, 0)
    assert not space.sensitive.ranges
    assert not space.unwatched
    assert space.lock_unwatched(call("mlock", pages, PAGE_SIZE))  # the kernel did not have to be asked


def test_a_lock_is_watched_where_another_task_may_be_in_a_call(space: AddressSpace, pages: int) -> None:
    space.tids.add(os.getpid() + 1)
    assert not space.lock_unwatched(call("mlock", pages, PAGE_SIZE))
    assert not space.sensitive.ranges


def test_a_program_that_made_us_ask_is_watched_from_then_on(space: AddressSpace, pages: int) -> None:
    space.lock_unwatched(call("mlock", pages, PAGE_SIZE))
    release(space, pages, PAGE_SIZE)
    assert not space.lock_unwatched(call("mlock", pages, PAGE_SIZE))


# what only a relative may hold


def test_pages_of_a_forked_family_are_nobody_elses_when_they_are_wiped(
    space: AddressSpace, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them for the copy makes them active, and that leaves references in a batch of this CPU."""
    order: list[str] = []
    save, clear = Saved.save, wipe.clear

    def traced_save(self: Saved, ranges: Sequence[tuple[int, int]]) -> None:
        order.append("save")
        save(self, ranges)

    def traced_clear(keeper: Keeper, runs: Sequence[wipe.Run], *, dying: bool) -> int:
        order.append("clear")
        return clear(keeper, runs, dying=dying)

    monkeypatch.setattr(address_space, "drain_page_batches", lambda: order.append("drain"))
    monkeypatch.setattr(Saved, "save", traced_save)
    monkeypatch.setattr(wipe, "clear", traced_clear)
    area = SaveArea()
    for forked in (False, True):
        order.clear()
        space.family.forked = forked
        space.sensitive.ranges.add(pages, pages + 4 * PAGE_SIZE)
        pending = begin(space, call("munmap", pages, 4 * PAGE_SIZE), area)
        space.end(pending, -errno.ENOMEM)
        assert order == (["drain", "save", "drain", "clear"] if forked else ["save", "clear"])


# a move of several mappings


def test_a_move_onto_locked_memory_spares_what_lies_under_a_hole(space: AddressSpace, pages: int) -> None:
    source = mm.mmap(0, 4 * PAGE_SIZE, mman.PROT_READ, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    mm.munmap(source + PAGE_SIZE, 2 * PAGE_SIZE)
    space.sensitive.ranges.add(pages, pages + 4 * PAGE_SIZE)
    fixed = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED
    pending = begin(space, call("mremap", source, 4 * PAGE_SIZE, 4 * PAGE_SIZE, fixed, pages), SaveArea())
    assert content(pages) == bytes(PAGE_SIZE) + 2 * SECRET + bytes(PAGE_SIZE)
    mm.munmap(source, 4 * PAGE_SIZE)
    space.end(pending, pages)
    assert list(space.sensitive.ranges) == [(pages + PAGE_SIZE, pages + 3 * PAGE_SIZE)]


# under MCL_FUTURE


def test_what_fails_to_be_unmapped_stays_unlocked(space: AddressSpace, pages: int) -> None:
    area = SaveArea()
    space.sensitive.future = True
    space.sensitive.ranges.add(0, pages)
    pending = begin(space, call("munmap", pages, PAGE_SIZE), area)
    assert list(space.sensitive.ranges) == [(0, pages + PAGE_SIZE)]
    space.end(pending, -errno.ENOMEM)
    assert list(space.sensitive.ranges) == [(0, pages)]
    space.end(begin(space, call("munmap", pages, PAGE_SIZE), area), 0)
    assert list(space.sensitive.ranges) == [(0, pages + PAGE_SIZE)]


# advice that locked memory refuses


@pytest.mark.parametrize("advice", [mman.MADV_DONTNEED, mman.MADV_FREE])
def test_what_locked_memory_refuses_wipes_only_what_is_inherited(
    space: AddressSpace, pages: int, advice: int
) -> None:
    mm.mlock(pages, PAGE_SIZE)
    space.sensitive.ranges.add(pages, pages + 2 * PAGE_SIZE)
    assert concerned(space, call("madvise", pages, 2 * PAGE_SIZE, advice)) == []
    space.sensitive.inherited = True
    assert concerned(space, call("madvise", pages, 2 * PAGE_SIZE, advice)) == [
        (pages + PAGE_SIZE, pages + 2 * PAGE_SIZE)
    ]
    assert concerned(space, call("madvise", pages, 2 * PAGE_SIZE, mman.MADV_DONTNEED_LOCKED)) == [
        (pages, pages + 2 * PAGE_SIZE)
    ]


# process_madvise, which may do a part of its work


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_what_was_done_of_it_is_not_undone(space: AddressSpace, pages: int, done: int) -> None:
    """Another thread has used the place again since."""
    vector = (ctypes.c_size_t * 4)(pages, PAGE_SIZE, pages + PAGE_SIZE, 3 * PAGE_SIZE)
    area = SaveArea()
    space.sensitive.ranges.add(pages, pages + 4 * PAGE_SIZE)
    advice = call("process_madvise", PIDFD_SELF, ctypes.addressof(vector), 2, mman.MADV_DONTNEED_LOCKED)
    pending = begin(space, advice, area)
    assert content(pages) == bytes(4 * PAGE_SIZE)
    new = b"n" * (done * PAGE_SIZE)
    ctypes.memmove(pages, new, len(new))
    space.end(pending, done * PAGE_SIZE)
    assert content(pages) == new + (4 - done) * SECRET
    assert is_clear(area)

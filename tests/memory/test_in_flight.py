# SPDX-License-Identifier: MIT
"""I/O that still refers to a program's memory when it is released; this process stands for the program."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlockwipe.linux import io_uring, libc, mm, mman, procfs
from mlockwipe.linux.arch import NATIVE, TASK_SIZE
from mlockwipe.linux.io_uring import Ring
from mlockwipe.memory.in_flight import Aside, Sieve, _requests_in_flight
from mlockwipe.memory.inject import Injection
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range, RangeSet

PAGE = mm.PAGE_SIZE


_open: list[Ring] = []


@pytest.fixture(autouse=True)
def no_rings_left() -> Iterator[None]:
    """Other tests take this process for a program, too."""
    yield
    while _open:
        _open.pop().close()


def ring(entries: int) -> Ring:
    try:
        _open.append(Ring(entries))
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    return _open[-1]


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


# -- pages that are pinned

PAGES = 8
SIZE = PAGES * PAGE
SECRET = bytes(range(1, 1 + PAGES)) * PAGE
ALL_LOCKED = RangeSet([(0, TASK_SIZE)])


class Worker(Injection):
    """One that executes the calls itself."""

    def __init__(self) -> None:
        super().__init__(os.getpid(), NATIVE, 0)

    def call(self, name: str, *arguments: int) -> int:
        rest = [0] * (6 - len(arguments))
        result: int = libc.syscall(NATIVE.numbers[name], *arguments, *rest)
        return result if result != -1 else -ctypes.get_errno()


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper(os.getpid(), NATIVE, 0)
    keeper.files = Files(os.getpid())
    keeper.worker = Worker()
    yield keeper
    keeper.files.close()


@pytest.fixture
def sieve(keeper: Keeper) -> Sieve:
    try:
        return Sieve(keeper)
    except OSError as error:
        pytest.skip(f"no UFFDIO_MOVE here (Linux 6.8): {error}")


def pages(length: int = SIZE, flags: int = 0) -> int:
    """The address of written pages."""
    at = mm.mmap(0, length, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | flags)
    ctypes.memmove(at, SECRET * (length // SIZE), length)
    return at


def splice(at: int, length: int = SIZE) -> int:
    """The read end of a pipe that keeps the physical pages."""
    read_end, write_end = os.pipe()
    assert mm.vmsplice(write_end, at, length) == length
    os.close(write_end)
    return read_end


def spliced(read_end: int) -> bytes:
    content = b""
    while more := os.read(read_end, 1 << 20):
        content += more
    os.close(read_end)
    return content


def at_page(content: bytes, number: int) -> bytes:
    return content[number * PAGE : (number + 1) * PAGE]


def test_pages_that_nothing_refers_to_are_wiped_and_given_back(keeper: Keeper, sieve: Sieve) -> None:
    at = pages()
    held = splice(at)
    assert sieve.wipe(at, at + SIZE) == (PAGES, [])
    assert procfs.anonymous_pages(keeper.files.pagemap, at, at + SIZE) == []
    assert spliced(held) == bytes(SIZE)


@pytest.mark.parametrize("pinned", [(0, 1), (7, 8), (2, 4), (0, 8)])
def test_pages_that_io_uring_holds_are_left_until_it_lets_go(sieve: Sieve, pinned: Range) -> None:
    at = pages()
    first, last = pinned
    submitting = ring(1)
    submitting.register(at + first * PAGE, (last - first) * PAGE)
    held = splice(at)
    wiped, left = sieve.wipe(at, at + SIZE)
    left_pages = {page for start, end in left for page in range(start, end, PAGE)}
    assert wiped == PAGES - len(left_pages)
    assert left_pages >= set(range(at + first * PAGE, at + last * PAGE, PAGE))
    for page in left_pages:
        assert ctypes.string_at(page, PAGE) == at_page(SECRET, (page - at) // PAGE)
    submitting.unregister()
    assert sieve.wipe(at, at + SIZE) == (len(left_pages), [])
    assert spliced(held) == bytes(SIZE)


def test_pages_that_a_fork_has_shared_are_wiped(sieve: Sieve) -> None:
    at = pages()
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(ctypes.string_at(at, SIZE) != SECRET)
    os.close(read_end)
    assert sieve.wipe(at, at + SIZE) == (PAGES, [])
    os.close(write_end)
    assert os.waitpid(child, 0)[1] == 0


def test_pinned_pages_that_a_fork_would_have_shared_are_left(sieve: Sieve) -> None:
    at = pages()
    submitting = ring(1)
    submitting.register(at, SIZE)
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    wiped, left = sieve.wipe(at, at + SIZE)
    assert wiped == 0
    assert sum(end - start for start, end in left) == SIZE


def test_huge_pages_are_wiped_as_a_whole(keeper: Keeper, sieve: Sieve) -> None:
    length = 6 << 20
    at = -(-mm.mmap(0, length + (2 << 20), 3, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS) // (2 << 20)) * (2 << 20)
    mm.madvise(at, length, mman.MADV_HUGEPAGE)
    ctypes.memset(at, 1, length)
    held = splice(at + (4 << 20), 16 * PAGE)
    assert sieve.wipe(at, at + length) == (length // PAGE, [])
    assert procfs.anonymous_pages(keeper.files.pagemap, at, at + length) == []
    assert spliced(held) == bytes(16 * PAGE)


def test_the_room_is_not_in_the_way_of_mlockall(sieve: Sieve) -> None:
    at = pages()
    start, end = sieve.open_room(SIZE)
    mm.mlock2(start, end - start, mman.MLOCK_ONFAULT)
    assert sieve.wipe(at, at + SIZE) == (PAGES, [])


def test_memory_that_is_locked_is_unlocked_on_the_way(sieve: Sieve) -> None:
    at = pages()
    mm.mlock(at, SIZE)
    assert sieve.wipe(at, at + SIZE) == (PAGES, [])


def test_a_private_mapping_of_a_file_can_not_be_sieved(sieve: Sieve, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(SECRET)
    fd = os.open(file, os.O_RDONLY)
    at = mm.mmap(0, SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE, fd)
    ctypes.memset(at, 1, PAGE)
    with pytest.raises(OSError, match="ioctl"):
        sieve.wipe(at, at + PAGE)
    assert ctypes.string_at(at, PAGE) == b"\1" * PAGE


def flags_at(address: int) -> frozenset[str]:
    smaps = Path("/proc/self/smaps").read_text()
    return next(flags for vma, flags in procfs.vma_flags(smaps) if vma.start <= address < vma.end)


def test_what_is_moved_aside_leaves_its_mapping_and_its_neighbours_locked(keeper: Keeper, sieve: Sieve) -> None:
    at = pages()
    mm.mlock(at, SIZE)
    sieve.open_room(SIZE)
    aside = Aside(keeper, sieve)
    aside.move([(at + 2 * PAGE, at + 4 * PAGE)], ALL_LOCKED, shut=False)
    ((place, _),) = aside.moved
    assert ctypes.string_at(place, 2 * PAGE) == SECRET[2 * PAGE : 4 * PAGE]
    assert ctypes.string_at(at + 2 * PAGE, 2 * PAGE) == bytes(2 * PAGE)
    assert "lo" in flags_at(at)
    assert "lo" in flags_at(at + 4 * PAGE)
    assert "lo" not in flags_at(at + 2 * PAGE)
    assert aside.let_go(stays=True) == [(place, place + 2 * PAGE)]
    assert "lo" in flags_at(at + 2 * PAGE)


def test_what_is_brought_back_is_where_it_was_and_locked(keeper: Keeper, sieve: Sieve) -> None:
    at = pages()
    mm.mlock(at, SIZE)
    sieve.open_room(SIZE)
    aside = Aside(keeper, sieve)
    aside.move([(at, at + 2 * PAGE), (at + 3 * PAGE, at + 8 * PAGE)], ALL_LOCKED, shut=False)
    aside.bring_back()
    assert not aside
    assert ctypes.string_at(at, SIZE) == SECRET
    assert all("lo" in flags_at(at + page * PAGE) for page in range(PAGES))


def test_a_part_is_brought_back_and_what_is_unmapped_is_not(keeper: Keeper, sieve: Sieve) -> None:
    at = pages()
    mm.mlock(at, SIZE)
    sieve.open_room(SIZE)
    aside = Aside(keeper, sieve)
    aside.move([(at, at + SIZE)], ALL_LOCKED, shut=False)
    mm.munmap(at + 2 * PAGE, PAGE)
    aside.bring_back(at + PAGE, at + 4 * PAGE)
    assert ctypes.string_at(at, 2 * PAGE) == bytes(PAGE) + at_page(SECRET, 1)
    assert ctypes.string_at(at + 3 * PAGE, 2 * PAGE) == at_page(SECRET, 3) + bytes(PAGE)
    left = [ctypes.string_at(start, end - start) for start, end in aside.let_go(stays=False)]
    assert left == [at_page(SECRET, 0), at_page(SECRET, 2), SECRET[4 * PAGE :]]


def test_where_pages_were_moved_from_nobody_finds_zeros(keeper: Keeper, sieve: Sieve) -> None:
    at = pages()
    sieve.open_room(SIZE)
    aside = Aside(keeper, sieve)
    aside.move([(at, at + SIZE)], ALL_LOCKED, shut=True)
    read_end, write_end = os.pipe()
    with pytest.raises(OSError, match="Bad address"):
        os.write(write_end, (ctypes.c_char * PAGE).from_address(at))
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(ctypes.string_at(at, SIZE)))
    aside.bring_back()
    thread.start()
    aside.let_go(stays=False)
    thread.join(10)
    assert found == [SECRET]
    os.close(read_end)
    os.close(write_end)


def test_what_stays_is_open_again_after_the_call(keeper: Keeper, sieve: Sieve) -> None:
    at = pages()
    sieve.open_room(SIZE)
    aside = Aside(keeper, sieve)
    aside.move([(at, at + SIZE)], ALL_LOCKED, shut=True)
    aside.let_go(stays=True)
    assert ctypes.string_at(at, SIZE) == bytes(SIZE)


def test_a_move_that_is_refused_has_changed_nothing(keeper: Keeper, sieve: Sieve) -> None:
    at = pages()
    mm.mlock(at, SIZE)
    hole = at + 6 * PAGE
    mm.munmap(hole, PAGE)
    sieve.open_room(SIZE)
    aside = Aside(keeper, sieve)
    with pytest.raises(OSError):
        aside.move([(at, at + PAGE), (hole, hole + PAGE)], ALL_LOCKED, shut=False)
    assert not aside
    assert ctypes.string_at(at, 6 * PAGE) == SECRET[: 6 * PAGE]
    assert "lo" in flags_at(at)

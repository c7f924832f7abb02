# SPDX-License-Identifier: MIT
"""Which pages are sensitive, and that they are zeros afterwards, whatever their protection."""

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlockwipe.linux import mm, procfs, ptrace
from mlockwipe.linux.arch import PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE
from mlockwipe.memory import wipe
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range
from tests.support.traced import stopped_child, subreaper

RW = PROT_READ | PROT_WRITE
SECRET = b"s" * PAGE_SIZE
LARGE = 1 << 20
OPTIONS = ptrace.O_TRACECLONE


@contextmanager
def mapped(
    length: int, protection: int = RW, flags: int = MAP_PRIVATE | MAP_ANONYMOUS, fd: int = -1
) -> Iterator[int]:
    """A mapping of this process, with an unreadable page before and behind it, so that it stays one of its own."""
    room = mm.mmap(0, length + 2 * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS)
    at = room + PAGE_SIZE
    mm.mmap(at, length, protection, flags | MAP_FIXED, fd)
    yield at
    mm.munmap(room, length + 2 * PAGE_SIZE)


# -- which pages


@pytest.fixture
def own_files() -> Iterator[Files]:
    files = Files(os.getpid())
    yield files
    files.close()


@pytest.fixture(params=["ioctls", "text"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ioctls of recent kernels, and by what older ones have."""
    if request.param == "text":
        monkeypatch.setattr(procfs, "_has_procmap_query", False)
        monkeypatch.setattr(procfs, "_has_pagemap_scan", False)


def sensitive(files: Files, at: int, length: int) -> list[Range]:
    """Those pages in a range of this process, as offsets in pages."""
    found = [run for _, run in wipe.sensitive_pages(files, [(at, at + length)])]
    return [((start - at) // PAGE_SIZE, (end - at) // PAGE_SIZE) for start, end in found]


def touch(at: int, *pages: int) -> None:
    for page in pages:
        ctypes.memmove(at + page * PAGE_SIZE, SECRET, PAGE_SIZE)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file of four pages."""
    path = tmp_path / "file"
    path.write_bytes(4 * SECRET)
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.mark.usefixtures("way")
def test_resident_pages_are_and_what_was_never_touched_is_not(own_files: Files) -> None:
    with mapped(6 * PAGE_SIZE) as at:
        assert sensitive(own_files, at, 6 * PAGE_SIZE) == []
        touch(at, 0, 1, 3)
        assert sensitive(own_files, at, 6 * PAGE_SIZE) == [(0, 2), (3, 4)]


@pytest.mark.usefixtures("way")
def test_only_what_lies_in_the_ranges_is(own_files: Files) -> None:
    with mapped(6 * PAGE_SIZE) as at:
        touch(at, *range(6))
        runs = wipe.sensitive_pages(
            own_files, [(at + part * PAGE_SIZE, at + (part + 1) * PAGE_SIZE) for part in (1, 4)]
        )
        assert [run for _, run in runs] == [
            (at + PAGE_SIZE, at + 2 * PAGE_SIZE),
            (at + 4 * PAGE_SIZE, at + 5 * PAGE_SIZE),
        ]


@pytest.mark.parametrize("protection", [PROT_READ, PROT_NONE])
@pytest.mark.usefixtures("way")
def test_pages_that_the_program_can_not_write_are(own_files: Files, protection: int) -> None:
    with mapped(2 * PAGE_SIZE) as at:
        touch(at, 0)
        mm.mprotect(at, 2 * PAGE_SIZE, protection)
        ((vma, _),) = wipe.sensitive_pages(own_files, [(at, at + 2 * PAGE_SIZE)])
        assert not vma.writable
        assert sensitive(own_files, at, 2 * PAGE_SIZE) == [(0, 1)]


def test_the_zero_page_is_not(own_files: Files) -> None:
    """Older kernels than 6.7 don't say which it is."""
    with mapped(3 * PAGE_SIZE) as at:
        ctypes.string_at(at, 2 * PAGE_SIZE)
        touch(at, 1)
        assert sensitive(own_files, at, 3 * PAGE_SIZE) == [(1, 2)]


@pytest.mark.usefixtures("way")
def test_shared_memory_is_not(own_files: Files) -> None:
    with mapped(2 * PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS) as at:
        touch(at, 0, 1)
        assert sensitive(own_files, at, 2 * PAGE_SIZE) == []


@pytest.mark.usefixtures("way")
def test_of_a_private_file_what_was_changed_is(own_files: Files, file: int) -> None:
    with mapped(4 * PAGE_SIZE, RW, MAP_PRIVATE, file) as at:
        ctypes.string_at(at, 4 * PAGE_SIZE)
        assert sensitive(own_files, at, 4 * PAGE_SIZE) == []
        touch(at, 2)
        assert sensitive(own_files, at, 4 * PAGE_SIZE) == [(2, 3)]


@pytest.mark.usefixtures("way")
def test_of_a_shared_file_nothing_is(own_files: Files, file: int) -> None:
    with mapped(4 * PAGE_SIZE, RW, MAP_SHARED, file) as at:
        touch(at, 2)
        assert sensitive(own_files, at, 4 * PAGE_SIZE) == []


def test_memory_of_a_device_is_not(own_files: Files, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages look anonymous. There is no such device here, so the flags say that it is one."""
    with mapped(4 * PAGE_SIZE, RW, MAP_PRIVATE, file) as at:
        touch(at, 2)
        assert sensitive(own_files, at, 4 * PAGE_SIZE) == [(2, 3)]
        flagged = procfs.flagged_vmas
        monkeypatch.setattr(
            procfs,
            "flagged_vmas",
            lambda fd: ((vma, flags | {"pf"} if vma.start == at else flags) for vma, flags in flagged(fd)),
        )
        assert sensitive(own_files, at, 4 * PAGE_SIZE) == []
        without_smaps = Files.of(own_files.memory, own_files.pagemap, own_files.maps)
        assert sensitive(without_smaps, at, 4 * PAGE_SIZE) == [(2, 3)]  # rather wiped than left


# -- wiping


@contextmanager
def kept_child(body: Callable[[], object]) -> Iterator[Keeper]:
    """The keeper of a child that has done `body`, and waits."""

    def waits() -> None:
        body()
        signal.pause()

    with subreaper(), stopped_child(waits, OPTIONS) as pid:
        keeper = Keeper.create(pid, procfs.Status(pid), None)
        try:
            yield keeper
        finally:
            keeper.let_go()


def test_what_the_kernel_maps_itself_is_not_sensitive() -> None:
    """Not even where a debugger has written to it, which makes the page an anonymous one."""
    with kept_child(lambda: None) as keeper:
        (vdso,) = [vma for vma in procfs.vmas(keeper.files.maps, 0, TASK_SIZE) if vma.name == "[vdso]"]
        os.pwrite(keeper.files.memory, content(keeper, vdso.start, 1), vdso.start)
        assert procfs.anonymous_pages(keeper.files.pagemap, vdso.start, vdso.end)
        assert not runs_of(keeper, vdso.start, vdso.end - vdso.start)


@pytest.fixture
def by_keeper(monkeypatch: pytest.MonkeyPatch) -> list[Range]:
    """What is cleared by the keeper itself, and not through /proc/PID/mem."""
    seen: list[Range] = []
    read_zeros = Keeper.read_zeros

    def spy(keeper: Keeper, start: int, end: int) -> None:
        read_zeros(keeper, start, end)
        seen.append((start, end))

    monkeypatch.setattr(Keeper, "read_zeros", spy)
    return seen


def content(keeper: Keeper, at: int, length: int) -> bytes:
    return os.pread(keeper.files.memory, length, at)


def runs_of(keeper: Keeper, at: int, length: int) -> list[wipe.Run]:
    return list(wipe.sensitive_pages(keeper.files, [(at, at + length)]))


def protection(keeper: Keeper, at: int) -> str:
    for line in procfs.read_all(keeper.files.maps).decode().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= at < end:
            return line.split()[1]
    raise AssertionError(f"nothing is mapped at {at:#x}")


def fills(at: int, length: int, then: int = RW) -> Callable[[], None]:
    """What has a child fill a range, and protect it."""

    def body() -> None:
        ctypes.memset(at, ord("s"), length)
        mm.mprotect(at, length, then)

    return body


@pytest.mark.parametrize("dying", [False, True])
@pytest.mark.parametrize("then", [RW, PROT_READ, PROT_NONE], ids=["writable", "read-only", "closed"])
@pytest.mark.parametrize("length", [2 * PAGE_SIZE, LARGE, 2 * LARGE + PAGE_SIZE], ids=["small", "large", "larger"])
def test_all_of_it_is_zeros_and_nothing_else_is(length: int, then: int, dying: bool, by_keeper: list[Range]) -> None:
    with mapped(length + PAGE_SIZE) as at, kept_child(fills(at, length + PAGE_SIZE, then)) as keeper:
        before = protection(keeper, at)
        assert content(keeper, at, length + PAGE_SIZE) == b"s" * (length + PAGE_SIZE)
        pages = wipe.clear(keeper, runs_of(keeper, at, length), dying=dying)
        assert pages == length // PAGE_SIZE
        assert content(keeper, at, length + PAGE_SIZE) == bytes(length) + SECRET
        through_keeper = length >= LARGE and (dying or then == RW)
        assert by_keeper == ([(at, at + length)] if through_keeper else [])
        if not dying:
            assert protection(keeper, at) == before  # of a program that lives


@pytest.mark.parametrize("length", [4 * PAGE_SIZE, 2 * LARGE])
def test_what_was_unmapped_meanwhile_is_passed_over(length: int) -> None:
    with mapped(length) as at, kept_child(fills(at, length)) as keeper:
        runs = runs_of(keeper, at, length)
        assert keeper.worker.call("munmap", at + PAGE_SIZE, 2 * PAGE_SIZE) == 0
        wipe.clear(keeper, runs, dying=False)
        assert content(keeper, at, PAGE_SIZE) == bytes(PAGE_SIZE)
        assert content(keeper, at + 3 * PAGE_SIZE, length - 3 * PAGE_SIZE) == bytes(length - 3 * PAGE_SIZE)


def test_what_is_mapped_and_can_not_be_written_is_an_error(file: int, own_files: Files) -> None:
    with mapped(PAGE_SIZE, PROT_READ, MAP_SHARED, file) as at:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            wipe.clear_by_writing(own_files, [(at, at + PAGE_SIZE)])
        assert ctypes.string_at(at, PAGE_SIZE) == SECRET


@pytest.mark.parametrize("sealed", [False, True])
def test_sealed_memory_is_written_to(sealed: bool, by_keeper: list[Range]) -> None:
    def body() -> None:
        fills(at, LARGE, PROT_READ)()
        if sealed:
            mm.mseal(at, LARGE)

    with mapped(PAGE_SIZE) as one_page:
        try:
            mm.mseal(one_page, 0)
        except OSError as error:
            pytest.skip(f"this kernel has no mseal: {error.strerror}")
    with mapped(LARGE) as at, kept_child(body) as keeper:
        wipe.clear(keeper, runs_of(keeper, at, LARGE), dying=True)
        assert content(keeper, at, LARGE) == bytes(LARGE)
        assert bool(by_keeper) != sealed


def test_without_the_keepers_worker_memory_is_written_to(by_keeper: list[Range]) -> None:
    with mapped(LARGE) as at, kept_child(fills(at, LARGE)) as keeper:
        runs = runs_of(keeper, at, LARGE)
        os.kill(keeper.worker.tid, signal.SIGKILL)
        assert wipe.clear(keeper, runs, dying=True) == LARGE // PAGE_SIZE
        assert content(keeper, at, LARGE) == bytes(LARGE)
        assert by_keeper == []


def test_where_zeros_can_not_be_read_memory_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_dev_zero(*_: object) -> None:
        raise FileNotFoundError

    with mapped(LARGE) as at, kept_child(fills(at, LARGE)) as keeper:
        monkeypatch.setattr(Keeper, "read_zeros", no_dev_zero)
        assert wipe.clear(keeper, runs_of(keeper, at, LARGE), dying=True) == LARGE // PAGE_SIZE
        assert content(keeper, at, LARGE) == bytes(LARGE)


@pytest.mark.parametrize("shared", [False, True])
def test_what_relatives_may_share_is_given_back_as_it_is_cleared(shared: bool) -> None:
    length = 5 << 20
    with mapped(length) as at, kept_child(fills(at, length)) as keeper:
        pages = wipe.clear(keeper, runs_of(keeper, at, length), dying=True, shared=shared)
        assert pages == length // PAGE_SIZE
        assert bool(runs_of(keeper, at, length)) != shared
        assert content(keeper, at, length) == bytes(length)

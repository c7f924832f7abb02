# SPDX-License-Identifier: MIT
"""The views of memory in /proc, and their fallbacks for older kernels, which must say the same."""

import ctypes
import mmap
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlockwipe.linux import procfs
from mlockwipe.linux.arch import PAGE_SIZE
from tests.support.traced import await_sleep, child

PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
PAGES = 8


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@pytest.fixture
def older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "_has_procmap_query", False)
    monkeypatch.setattr(procfs, "_has_pagemap_scan", False)


@pytest.fixture
def fds() -> Iterator[tuple[int, int]]:
    opened = (procfs.open_file(os.getpid(), "maps"), procfs.open_file(os.getpid(), "pagemap"))
    yield opened
    for fd in opened:
        os.close(fd)


def check_vmas(maps_fd: int) -> None:
    memory = mmap.mmap(-1, PAGES * PAGE_SIZE, flags=PRIVATE)
    at = address_of(memory)
    (vma,) = procfs.vmas(maps_fd, at + PAGE_SIZE, at + 2 * PAGE_SIZE)
    assert vma.start <= at
    assert at + PAGES * PAGE_SIZE <= vma.end
    assert (vma.writable, vma.shared) == (True, False)
    assert vma.inode == 0


def check_names(maps_fd: int) -> None:
    names = [vma.name for vma in procfs.vmas(maps_fd, 0, 1 << 47)]
    assert "[stack]" in names
    assert any("libc.so" in name for name in names)


def check_pages(pagemap_fd: int, *, zero_page_counts: bool) -> None:
    memory = mmap.mmap(-1, PAGES * PAGE_SIZE, flags=PRIVATE)
    at = address_of(memory)
    for page in (1, 2, 5):
        memory[page * PAGE_SIZE] = 1
    assert memory[7 * PAGE_SIZE] == 0  # a read maps the zero page
    expected = [(1, 3), (5, 6)] + ([(7, 8)] if zero_page_counts else [])
    found = procfs.anonymous_pages(pagemap_fd, at, at + PAGES * PAGE_SIZE)
    assert [((low - at) // PAGE_SIZE, (high - at) // PAGE_SIZE) for low, high in found] == expected


def check_file_pages(pagemap_fd: int) -> None:
    """Of a private file mapping only the changed page is anonymous; of shared memory none is."""
    fd = os.memfd_create("file")
    os.write(fd, bytes(PAGES * PAGE_SIZE))
    private = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)
    assert not any(private[:])
    private[3 * PAGE_SIZE] = 1
    at = address_of(private)
    assert procfs.anonymous_pages(pagemap_fd, at, at + PAGES * PAGE_SIZE) == [
        (at + 3 * PAGE_SIZE, at + 4 * PAGE_SIZE)
    ]
    shared = mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    shared[0] = 1
    assert procfs.anonymous_pages(pagemap_fd, address_of(shared), address_of(shared) + PAGE_SIZE) == []
    os.close(fd)


def test_mappings(fds: tuple[int, int]) -> None:
    check_vmas(fds[0])
    check_names(fds[0])


@pytest.mark.usefixtures("older_kernel")
def test_mappings_without_procmap_query(fds: tuple[int, int]) -> None:
    check_vmas(fds[0])
    check_names(fds[0])


def test_anonymous_pages(fds: tuple[int, int]) -> None:
    check_pages(fds[1], zero_page_counts=not procfs._has_pagemap_scan)
    check_file_pages(fds[1])


@pytest.mark.usefixtures("older_kernel")
def test_anonymous_pages_without_pagemap_scan(fds: tuple[int, int]) -> None:
    check_pages(fds[1], zero_page_counts=True)
    check_file_pages(fds[1])


def test_a_locked_mapping_has_its_flag() -> None:
    text = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \nSize: 4 kB\nVmFlags: rd wr mr mw me lo ac \n"
    ((vma, flags),) = procfs.vma_flags(text)
    assert vma.start == 0x7F0000000000
    assert "lo" in flags
    assert "sl" not in flags


def test_a_line_of_maps_with_spaces_in_its_name() -> None:
    (vma,) = procfs.parse_maps("1000-2000 r--s 00003000 fd:00 77                         /tmp/a b (deleted)\n")
    assert (vma.offset, vma.inode, vma.name, vma.shared) == (0x3000, 77, "/tmp/a b (deleted)", True)


def test_the_fields_of_stat_survive_a_hostile_name() -> None:
    child = os.fork()
    if child == 0:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write("a) Z (b")
        while True:
            os.sched_yield()
    try:
        while procfs.status_field(child, "Name") != "a) Z (b":
            os.sched_yield()
        assert procfs.stat_fields(child)[0] in "RS"
        assert int(procfs.stat_fields(child)[1]) == os.getpid()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_an_unknown_field_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        procfs.status_field(os.getpid(), "NoSuchField")


@pytest.mark.parametrize("end", ["\f", "\v", "\x1c", "\x85", "\u2028", "\r"])
def test_no_name_of_a_file_ends_a_line(end: str) -> None:
    line = "7f0000000000-7f0000001000 r--p 00000000 08:01 42                         /tmp/a"
    text = f"{line}{end}b\n{line}\n"
    assert [vma.name for vma in procfs.parse_maps(text)] == [f"/tmp/a{end}b", "/tmp/a"]
    flagged = list(procfs.vma_flags(f"{line}{end}b\nSize: 4 kB\nVmFlags: rd lo \n{line}\nVmFlags: rd \n"))
    assert [(vma.name, sorted(flags)) for vma, flags in flagged] == [
        (f"/tmp/a{end}b", ["lo", "rd"]),
        ("/tmp/a", ["rd"]),
    ]
    assert list(procfs.parse_maps("")) == []


def test_a_file_whose_path_is_too_long_is_a_mapping_like_any_other(tmp_path: Path, fds: tuple[int, int]) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=place)
        place = os.open("d" * 250, os.O_RDONLY, dir_fd=place)
    fd = os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=place)
    os.ftruncate(fd, PAGE_SIZE)
    mapped = mmap.mmap(fd, PAGE_SIZE)
    found = list(procfs.vmas(fds[0], 0, 1 << 47))
    assert len([vma for vma in found if vma.start == address_of(mapped)]) == 1
    assert len({vma.start for vma in found}) == len(found)


@pytest.mark.parametrize("groups", [3, 1500, 65536], ids=["short", "longer-than-one-read", "longest"])
def test_a_status_is_read_to_its_end_however_many_groups_are_in_it(groups: int) -> None:
    if os.geteuid():
        pytest.skip("only root may be in so many groups")

    def body() -> None:
        os.setgroups(range(2_000_000_000, 2_000_000_000 + groups))
        signal.pause()

    with child(body) as pid:
        await_sleep(pid)
        status = procfs.Status(pid)
        assert len(status["Groups"].split()) == groups
        assert status["Seccomp_filters"] == procfs.status_field(os.getpid(), "Seccomp_filters")  # it comes after them

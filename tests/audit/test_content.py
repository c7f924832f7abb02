# SPDX-License-Identifier: MIT
"""Counting what memory holds, of this very process."""

import os

import pytest

from mlockwipe.audit import content as module
from mlockwipe.audit.content import content
from mlockwipe.linux import mm, mman
from mlockwipe.memory.proc_files import Files

PAGE = mm.PAGE_SIZE
PAGES = 40  # more than one read takes


@pytest.fixture
def files() -> Files:
    return Files(os.getpid())


def room() -> int:
    return mm.mmap(0, PAGES * PAGE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)


def write(files: Files, address: int, text: bytes) -> None:
    os.pwrite(files.memory, text, address)


def test_bytes_and_pages_are_counted(files: Files) -> None:
    at = room()
    write(files, at, bytes(PAGES * PAGE))
    assert content(files, [(at, at + PAGES * PAGE)]).clear
    write(files, at + 5, b"abc\0d")
    write(files, at + (PAGES - 1) * PAGE, b"\xff" * PAGE)
    found = content(files, [(at, at + PAGES * PAGE)])
    assert (found.pages, found.bytes, found.clear) == (2, 4 + PAGE, False)
    assert content(files, [(at, at + PAGE)]).bytes == 4


def test_only_the_bytes_that_are_asked_for_count(files: Files) -> None:
    at = room()
    write(files, at, b"a" * PAGE * PAGES)
    assert content(files, [(at + 10, at + 13)]) == module.Content(1, 3, 0.0)
    across = content(files, [(at + PAGE - 1, at + 20 * PAGE + 1)])
    assert (across.pages, across.bytes) == (21, 19 * PAGE + 2)


@pytest.mark.parametrize(
    ("text", "entropy"), [(b"k" * 64, 0.0), (b"ab" * 50, 1.0), (bytes(range(256)), 7.99), (b"", 0.0)]
)
def test_entropy_is_of_what_is_not_zero(files: Files, text: bytes, entropy: float) -> None:
    at = room()
    write(files, at, text.ljust(PAGE, b"\0"))
    assert content(files, [(at, at + PAGE)]).entropy == entropy


def test_what_is_not_resident_is_not_read(files: Files) -> None:
    at = room()
    assert content(files, [(at, at + PAGES * PAGE)]).clear


def test_no_copy_stays_in_the_auditor(files: Files) -> None:
    at = room()
    write(files, at, b"secret" * 100)
    content(files, [(at, at + PAGE)])
    assert not any(module._room)

# SPDX-License-Identifier: MIT
"""W11: a file mapped MAP_PRIVATE. Pages that the program changed are its own; the others are the file's."""

import os

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import read, write
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, READ_WRITE, SIZE, Program
from mlockwipe.linux import mm, mman

HALF = PAGES // 2
CONTENT = b"content." * (SIZE // 8)


def _file(flags: int) -> int:
    """A file of PAGES pages, opened with `flags`."""
    write("file", CONTENT)
    return os.open("file", flags)


def _map(fd: int, prot: int = READ_WRITE) -> int:
    """The address of the file, locked; the first half is changed."""
    at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_PRIVATE, fd)
    mm.mlock(at, SIZE)
    paint(at, HALF)
    mm.mprotect(at, SIZE, prot)
    return at


def _file_is_unharmed(program: Program) -> None:
    program.unharmed("the file", read("file") == CONTENT.decode())


@case("W11", "unmap", WIPED, "unmapped: the changed half; the file keeps its content")
def unmap(program: Program) -> None:
    at = _map(_file(os.O_RDWR))
    program.show(at, HALF)
    mm.munmap(at, SIZE)
    program.look()
    _file_is_unharmed(program)


@case("W11", "exit", WIPED, "the program ends: the changed half; the file keeps its content")
def exit_(program: Program) -> None:
    fd = _file(os.O_RDWR)
    program.reap(program.fork(lambda: program.show(_map(fd), HALF)))
    _file_is_unharmed(program)


@case("W11", "opened-read-only", WIPED, "a file that the program may not write")
def opened_read_only(program: Program) -> None:
    fd = _file(os.O_RDONLY)
    program.reap(program.fork(lambda: program.show(_map(fd), HALF)))
    _file_is_unharmed(program)


@case("W11", "mapped-read-only", WIPED, "changed, then made read-only")
def mapped_read_only(program: Program) -> None:
    fd = _file(os.O_RDONLY)
    program.reap(program.fork(lambda: program.show(_map(fd, mman.PROT_READ), HALF)))
    _file_is_unharmed(program)


@case("W11", "inaccessible", WIPED, "changed, then made inaccessible")
def inaccessible(program: Program) -> None:
    fd = _file(os.O_RDONLY)

    def body() -> None:
        at = _map(fd)
        program.show(at, HALF)
        mm.mprotect(at, SIZE, mman.PROT_NONE)

    program.reap(program.fork(body))
    _file_is_unharmed(program)


@case("W11", "part", WIPED, "changed pages are unmapped, all others keep every byte")
def part(program: Program) -> None:
    at = _map(_file(os.O_RDONLY))
    program.show(at, 2)
    mm.munmap(at, 2 * PAGE)
    program.look()
    program.intact("the other changed pages", at + 2 * PAGE, HALF - 2)
    _file_is_unharmed(program)


@case("W11", "changed-before-lock", WIPED, "changed before it was locked")
def changed_before_lock(program: Program) -> None:
    at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_PRIVATE, _file(os.O_RDONLY))
    paint(at, HALF)
    mm.mlock(at, SIZE)
    program.show(at, HALF)
    mm.munmap(at, SIZE)
    program.look()
    _file_is_unharmed(program)


@case("W11", "truncated", WIPED, "the file is made shorter: the kernel unmaps changed pages beyond its end")
def truncated(program: Program) -> None:
    fd = _file(os.O_RDWR)
    program.show(_map(fd), HALF)
    os.ftruncate(fd, 0)
    program.look()

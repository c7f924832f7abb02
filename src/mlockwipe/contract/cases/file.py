# SPDX-License-Identifier: MIT
"""L2: pages of files. A file that the program may only read must never change, nor one that it shares."""

import os
import signal
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGES, PRIVATE, READ_WRITE, SIZE, Program
from mlockwipe.linux import mm, mman


def painted_file(flags: int = os.O_RDWR) -> int:
    """A file of PAGES painted pages, opened with `flags`."""
    fd = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, SIZE)
    at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd)
    paint(at, PAGES)
    mm.munmap(at, SIZE)
    os.close(fd)
    return os.open("file", flags)


def is_unharmed(program: Program, fd: int) -> None:
    at = mm.mmap(0, SIZE, mman.PROT_READ, mman.MAP_SHARED, fd)
    program.intact("the file", at)


def _released(
    program: Program,
    flags: int,
    sharing: int,
    prot: int,
    release: Callable[[int], object] = lambda at: None,
    status: int = 0,
) -> None:
    """A child maps and locks the file's pages, shows them and releases them."""
    fd = painted_file(flags)

    def body() -> None:
        at = mm.mmap(0, SIZE, prot, sharing, fd)
        mm.mlock(at, SIZE)
        program.show(at)
        release(at)

    program.reap(program.fork(body), status)
    is_unharmed(program, fd)


def _unmap(at: int) -> None:
    mm.munmap(at, SIZE)


def _map_over(at: int) -> None:
    mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED)


def _kill(at: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@case("L2", "shared-exit", KEPT, "MAP_SHARED, when the program ends")
def shared_exit(program: Program) -> None:
    _released(program, os.O_RDWR, mman.MAP_SHARED, READ_WRITE)


@case("L2", "shared-unmap", KEPT, "MAP_SHARED, unmapped")
def shared_unmap(program: Program) -> None:
    _released(program, os.O_RDWR, mman.MAP_SHARED, READ_WRITE, _unmap)


@case("L2", "shared-mapped-over", KEPT, "MAP_SHARED, mapped over")
def shared_mapped_over(program: Program) -> None:
    _released(program, os.O_RDWR, mman.MAP_SHARED, READ_WRITE, _map_over)


@case("L2", "shared-dirty", KEPT, "MAP_SHARED, written while locked: what was written reaches the file")
def shared_dirty(program: Program) -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, SIZE)

    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd)
        mm.mlock(at, SIZE)
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))
    is_unharmed(program, fd)


@case("L2", "shared-read-only", KEPT, "MAP_SHARED of a file that the program may only read")
def shared_read_only(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_SHARED, mman.PROT_READ)


@case("L2", "private-unchanged-exit", KEPT, "MAP_PRIVATE, nothing changed, when the program ends")
def private_unchanged_exit(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_PRIVATE, mman.PROT_READ)


@case("L2", "private-unchanged-unmap", KEPT, "MAP_PRIVATE, nothing changed, unmapped")
def private_unchanged_unmap(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_PRIVATE, mman.PROT_READ, _unmap)


@case(
    "L2",
    "private-executable",
    KEPT,
    "MAP_PRIVATE, readable and executable, as a program's own code is mapped",
)
def private_executable(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_PRIVATE, mman.PROT_READ | mman.PROT_EXEC)


@case("L2", "private-writable-unchanged", KEPT, "MAP_PRIVATE, writable, locked on fault and only read")
def private_writable_unchanged(program: Program) -> None:
    fd = painted_file(os.O_RDONLY)

    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_PRIVATE, fd)
        mm.mlock2(at, SIZE, mman.MLOCK_ONFAULT)
        program.show(at)

    program.reap(program.fork(body))
    is_unharmed(program, fd)


@case("L2", "private-other-pages", KEPT, "MAP_PRIVATE, half changed: the other half, which is the file's")
def private_other_pages(program: Program) -> None:
    fd = painted_file(os.O_RDONLY)
    half = SIZE // 2

    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_PRIVATE, fd)
        mm.mlock2(at, SIZE, mman.MLOCK_ONFAULT)
        paint(at, PAGES // 2)
        program.show(at + half, PAGES // 2)

    program.reap(program.fork(body))
    is_unharmed(program, fd)


@case("L2", "child-of-locker", KEPT, "a child exits with a file mapping that its parent locked")
def child_of_locker(program: Program) -> None:
    fd = painted_file(os.O_RDONLY)
    at = mm.mmap(0, SIZE, mman.PROT_READ, mman.MAP_PRIVATE, fd)
    mm.mlock(at, SIZE)
    program.reap(program.fork(lambda: program.show(at)))
    is_unharmed(program, fd)


@case("L2", "own-code", KEPT, "mlockall: the program's own code and libraries, which others run too")
def own_code(program: Program) -> None:
    from mlockwipe.contract.cases.lockall import lock_all

    fd = painted_file(os.O_RDONLY)

    def body() -> None:
        at = mm.mmap(0, SIZE, mman.PROT_READ | mman.PROT_EXEC, mman.MAP_PRIVATE, fd)
        lock_all(program, mman.MCL_CURRENT)
        program.show(at)

    program.reap(program.fork(body))
    is_unharmed(program, fd)

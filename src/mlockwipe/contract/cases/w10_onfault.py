# SPDX-License-Identifier: MIT
"""W10: pages that are locked as they become resident. Those that never do must not, to be wiped."""

import os

from mlockwipe.contract.case import KEPT, WIPED, case
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program
from mlockwipe.contract.steps import lock_all
from mlockwipe.linux import mm, mman

HALF = PAGES // 2
MANY = 256  # pages, most of them never touched


def _sparse() -> int:
    """The address of MANY pages of which the first half dozen or so are resident."""
    at = mm.mmap(0, MANY * PAGE, READ_WRITE, PRIVATE)
    mm.mlock2(at, MANY * PAGE, mman.MLOCK_ONFAULT)
    paint(at, HALF)
    return at


@case("W10", "onfault-unmap", WIPED, "MLOCK_ONFAULT: what is resident when it is unmapped")
def onfault_unmap(program: Program) -> None:
    at = _sparse()
    program.show(at, HALF)
    mm.munmap(at, MANY * PAGE)
    program.look()


@case("W10", "onfault-exit", WIPED, "MLOCK_ONFAULT: what is resident when the program ends")
def onfault_exit(program: Program) -> None:
    program.reap(program.fork(lambda: program.show(_sparse(), HALF)))


@case(
    "W10",
    "onfault-holes-stay",
    WIPED,
    "MLOCK_ONFAULT: half is unmapped, no page of the rest becomes resident",
)
def onfault_holes_stay(program: Program) -> None:
    at = _sparse()
    middle = at + MANY // 2 * PAGE
    program.show(at, HALF)
    mm.munmap(at, MANY // 2 * PAGE)
    program.look()
    program.check("pages resident", sum(mm.mincore(middle, MANY // 2 * PAGE)), 0)


@case("W10", "onfault-holes-move", WIPED, "MLOCK_ONFAULT: moved, no page more is resident at the new place")
def onfault_holes_move(program: Program) -> None:
    at = _sparse()
    room = mm.mmap(0, MANY * PAGE, mman.PROT_NONE, PRIVATE)
    moved = mm.mremap(at, MANY * PAGE, MANY * PAGE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, room)
    program.intact("the pages that moved", moved, HALF)
    program.check("pages resident", sum(mm.mincore(moved, MANY * PAGE)), HALF)
    program.show(moved, HALF)
    mm.munmap(moved, MANY * PAGE)
    program.look()


@case("W10", "onfault-all", WIPED, "mlockall(MCL_CURRENT | MCL_ONFAULT): pages touched before and after it")
def onfault_all(program: Program) -> None:
    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, PRIVATE)
        paint(at, HALF)
        lock_all(program, mman.MCL_CURRENT | mman.MCL_ONFAULT)
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))


@case("W10", "onfault-future", WIPED, "mlockall(MCL_FUTURE | MCL_ONFAULT): pages touched after it")
def onfault_future(program: Program) -> None:
    def body() -> None:
        mm.mlockall(mman.MCL_FUTURE | mman.MCL_ONFAULT)
        program.show(program.plain())

    program.reap(program.fork(body))


@case(
    "W10",
    "onfault-file-not-read",
    KEPT,
    "MLOCK_ONFAULT of a private file: the end of the program reads no page of the file",
    shows=False,
)
def onfault_file_not_read(program: Program) -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"content." * (MANY * PAGE // 8))
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    cached = mm.mmap(0, MANY * PAGE, mman.PROT_READ, mman.MAP_SHARED, fd)
    if sum(mm.mincore(cached, MANY * PAGE)) > HALF:
        program.cannot("the file system keeps every page of a file in memory")

    def body() -> None:
        at = mm.mmap(0, MANY * PAGE, READ_WRITE, mman.MAP_PRIVATE, fd)
        mm.madvise(at, MANY * PAGE, mman.MADV_RANDOM)  # no read-ahead
        mm.mlock2(at, MANY * PAGE, mman.MLOCK_ONFAULT)
        paint(at, 1)

    program.reap(program.fork(body))
    after = sum(mm.mincore(cached, MANY * PAGE))
    program.check(f"{after} pages read are no more than the one that was used", after <= HALF, True)

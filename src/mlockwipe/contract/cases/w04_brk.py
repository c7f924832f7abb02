# SPDX-License-Identifier: MIT
"""W4: the heap shrinks."""

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program
from mlockwipe.contract.steps import grown_heap
from mlockwipe.linux import mm, mman

HALF = PAGES // 2


@case("W4", "shrink", WIPED, "all that was locked goes")
def shrink(program: Program) -> None:
    at = grown_heap()
    mm.mlock(at, SIZE)
    paint(at, PAGES)
    program.show(at)
    mm.brk(at)
    program.look()


@case("W4", "shrink-part", WIPED, "the upper half goes, the lower keeps every byte")
def shrink_part(program: Program) -> None:
    at = grown_heap()
    mm.mlock(at, SIZE)
    paint(at, PAGES)
    program.show(at + HALF * PAGE, HALF)
    mm.brk(at + HALF * PAGE)
    program.look()
    program.intact("the lower half", at, HALF)


@case("W4", "shrink-inside-page", WIPED, "the heap then ends inside a page, which stays")
def shrink_inside_page(program: Program) -> None:
    at = grown_heap()
    mm.mlock(at, SIZE)
    paint(at, PAGES)
    program.show(at + HALF * PAGE, HALF)
    mm.brk(at + HALF * PAGE - 1)
    program.look()
    program.intact("the lower half", at, HALF)


@case("W4", "locked-island", WIPED, "locked in the middle only: the heap is several mappings then")
def locked_island(program: Program) -> None:
    at = grown_heap()
    mm.mlock(at + HALF * PAGE, 2 * PAGE)
    paint(at, PAGES)
    program.show(at + HALF * PAGE, 2)
    mm.brk(at)
    program.look()


@case("W4", "neighbour", WIPED, "a locked neighbour of the heap, which the kernel has merged with it, stays")
def neighbour(program: Program) -> None:
    at = grown_heap()
    other = mm.mmap(at + SIZE, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED_NOREPLACE)
    mm.mlock(at, 2 * SIZE)
    paint(at, 2 * PAGES)
    program.show(at)
    mm.brk(at)
    program.look()
    program.intact("the neighbour", other)


@case("W4", "unmapped", WIPED, "munmap of heap pages")
def unmapped(program: Program) -> None:
    at = grown_heap()
    mm.mlock(at, SIZE)
    paint(at, PAGES)
    program.show(at + HALF * PAGE, HALF)
    mm.munmap(at + HALF * PAGE, HALF * PAGE)
    program.look()
    program.intact("the lower half", at, HALF)

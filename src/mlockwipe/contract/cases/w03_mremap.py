# SPDX-License-Identifier: MIT
"""W3: mremap of a locked range. Pages move, and none is copied: what is left behind is empty."""

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.foreign_abi import LOW, MREMAP, i386
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, SIZE, Program, refused
from mlockwipe.linux import mm, mman

HALF = PAGES // 2
MOVE = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED


def _room(size: int = SIZE) -> int:
    """The address of inaccessible pages to move to."""
    return mm.mmap(0, size, mman.PROT_NONE, PRIVATE | mman.MAP_NORESERVE)


@case("W3", "shrink", WIPED, "the end that is cut off; the rest keeps every byte")
def shrink(program: Program) -> None:
    at = program.secret()
    program.show(at + HALF * PAGE, HALF)
    mm.mremap(at, SIZE, HALF * PAGE)
    program.look()
    program.intact("the pages that stay", at, HALF)


@case("W3", "shrink-and-move", WIPED, "the end that is cut off on the way to another place")
def shrink_and_move(program: Program) -> None:
    at = program.secret()
    program.show(at + HALF * PAGE, HALF)
    moved = mm.mremap(at, SIZE, HALF * PAGE, MOVE, _room())
    program.look()
    program.intact("the pages that moved", moved, HALF)


@case("W3", "move-then-unmap", WIPED, "moved: arrives intact, is unmapped at the new place")
def move_then_unmap(program: Program) -> None:
    at = program.secret()
    moved = mm.mremap(at, SIZE, SIZE, MOVE, _room())
    program.intact("the pages that moved", moved)
    program.show(moved)
    mm.munmap(moved, SIZE)
    program.look()


@case("W3", "move-then-exit", WIPED, "moved: what the program leaves at the new place when it ends")
def move_then_exit(program: Program) -> None:
    def body() -> None:
        moved = mm.mremap(program.secret(), SIZE, SIZE, MOVE, _room())
        program.show(moved)

    program.reap(program.fork(body))


@case("W3", "move-part-then-exit", WIPED, "half is moved: both halves when the program ends")
def move_part_then_exit(program: Program) -> None:
    def body() -> None:
        at = program.secret()
        moved = mm.mremap(at, HALF * PAGE, HALF * PAGE, MOVE, _room())
        program.show(moved, HALF)
        program.show(at + HALF * PAGE, HALF)

    program.reap(program.fork(body))


@case("W3", "grow-then-unmap", WIPED, "grown, moved by it or not: the new pages are locked too")
def grow_then_unmap(program: Program) -> None:
    at = program.secret(HALF)
    grown = mm.mremap(at, HALF * PAGE, SIZE, mman.MREMAP_MAYMOVE)
    program.intact("the pages that were there", grown, HALF)
    paint(grown, PAGES)
    program.show(grown)
    mm.munmap(grown, SIZE)
    program.look()


@case("W3", "onto", WIPED, "another mapping is moved onto it and arrives intact")
def onto(program: Program) -> None:
    at = program.secret()
    other = program.plain()
    program.show(at)
    mm.mremap(other, SIZE, SIZE, MOVE, at)
    program.look()
    program.intact("the pages that moved", at)


@case("W3", "onto-locked", WIPED, "another locked range is moved onto it, and wiped in its turn")
def onto_locked(program: Program) -> None:
    at = program.secret(HALF)
    other = program.secret(HALF)
    program.show(at, HALF)
    mm.mremap(other, HALF * PAGE, HALF * PAGE, MOVE, at)
    program.look()
    program.intact("the pages that moved", at, HALF)
    program.show(at, HALF)
    mm.munmap(at, HALF * PAGE)
    program.look()


@case("W3", "dontunmap", WIPED, "MREMAP_DONTUNMAP: the content is at the new place, and goes from there")
def dontunmap(program: Program) -> None:
    at = program.secret()
    moved = mm.mremap(at, SIZE, SIZE, mman.MREMAP_MAYMOVE | mman.MREMAP_DONTUNMAP)
    program.intact("the pages that moved", moved)
    program.check("the old place is empty", any(mm.mincore(at, SIZE)), False)
    program.show(moved)
    mm.munmap(moved, SIZE)
    program.look()


@case("W3", "dontunmap-part", WIPED, "MREMAP_DONTUNMAP of half of it: the kernel unlocks the other half, too")
def dontunmap_part(program: Program) -> None:
    at = program.secret()
    rest = at + HALF * PAGE
    mm.mremap(at, HALF * PAGE, HALF * PAGE, mman.MREMAP_MAYMOVE | mman.MREMAP_DONTUNMAP)
    program.show(rest, HALF)
    if refused(mm.madvise, rest, HALF * PAGE, mman.MADV_DONTNEED) is not None:
        program.cannot("this kernel keeps the other half locked (unlocked: Linux 6.18)")
    program.look()


@case("W3", "move-two-mappings", WIPED, "one call moves two mappings, of which one is locked (Linux 6.17)")
def move_two_mappings(program: Program) -> None:
    at = program.plain()
    mm.mlock(at, HALF * PAGE)
    room = _room()
    if refused(mm.mremap, at, SIZE, SIZE, MOVE, room) is not None:
        program.cannot("this kernel moves one mapping at a time (several: Linux 6.17)")
    program.intact("the pages that moved", room)
    program.show(room, HALF)
    mm.munmap(room, SIZE)
    program.look()


@case("W3", "i386-shrink", WIPED, "an i386 mremap shrinks it")
def i386_shrink(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at + HALF * PAGE, HALF)
    call(MREMAP, at, SIZE, HALF * PAGE, 0, 0)
    program.look()
    program.intact("the pages that stay", at, HALF)

# SPDX-License-Identifier: MIT
"""W13: transparent huge pages."""

import ctypes

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import read
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program, Signal
from mlockwipe.linux import mm, mman

HUGE = 2 << 20
MEDIUM = 64 << 10
_MEDIUM_PAGES = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB"  # Documentation/admin-guide/mm/transhuge.rst


def _huge_page(program: Program) -> int:
    """The address of a locked huge page whose first 2 * PAGES pages are painted."""
    start = mm.mmap(0, 2 * HUGE, READ_WRITE, PRIVATE | mman.MAP_NORESERVE)
    at = -(-start // HUGE) * HUGE
    mm.madvise(at, HUGE, mman.MADV_HUGEPAGE)
    mm.mlock(at, HUGE)
    paint(at, 2 * PAGES)
    if not _is_huge(at):
        program.cannot("the kernel gave no huge page: /sys/kernel/mm/transparent_hugepage/enabled, or none is free")
    return at


def _is_huge(address: int) -> bool:
    inside = False
    for line in read("/proc/self/smaps").splitlines():
        if line[0] in "0123456789abcdef":
            start, _, end = line.split()[0].partition("-")
            inside = int(start, 16) <= address < int(end, 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) > 0
    return False


@case("W13", "unmap-part", WIPED, "a part is unmapped: exactly that part goes")
def unmap_part(program: Program) -> None:
    at = _huge_page(program)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()
    program.intact("the pages after the part", at + SIZE)


@case("W13", "unmap-middle", WIPED, "pages in its middle are unmapped")
def unmap_middle(program: Program) -> None:
    at = _huge_page(program)
    program.show(at + SIZE // 2)
    mm.munmap(at + SIZE // 2, SIZE)
    program.look()
    program.intact("the pages before", at, PAGES // 2)
    program.intact("the pages after", at + SIZE // 2 + SIZE, PAGES // 2)


@case("W13", "unmap-whole", WIPED, "it is unmapped as a whole")
def unmap_whole(program: Program) -> None:
    at = _huge_page(program)
    program.show(at)
    mm.munmap(at, HUGE)
    program.look()


@case("W13", "exit", WIPED, "the program ends")
def exit_(program: Program) -> None:
    program.reap(program.fork(lambda: program.show(_huge_page(program))))


@case("W13", "dontneed-part", WIPED, "MADV_DONTNEED_LOCKED of a part")
def dontneed_part(program: Program) -> None:
    at = _huge_page(program)
    program.show(at)
    mm.madvise(at, SIZE, mman.MADV_DONTNEED_LOCKED)
    program.look()
    program.intact("the pages after the part", at + SIZE)


@case("W13", "moved", WIPED, "a part is moved away, and unmapped there")
def moved(program: Program) -> None:
    at = _huge_page(program)
    room = mm.mmap(0, SIZE, mman.PROT_NONE, PRIVATE)
    part = mm.mremap(at, SIZE, SIZE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, room)
    program.intact("the part that moved", part)
    program.intact("the pages after the part", at + SIZE)
    program.show(part)
    mm.munmap(part, SIZE)
    program.look()


@case("W13", "child-exits", WIPED, "a child exits with a copy of some of its pages")
def child_exits(program: Program) -> None:
    at = _huge_page(program)

    def body() -> None:
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))
    program.intact("the parent's own pages", at, 2 * PAGES)


@case("W13", "half-unlocked", WIPED, "locked in part only: the part that is")
def half_unlocked(program: Program) -> None:
    at = _huge_page(program)
    mm.munlock(at + SIZE, HUGE - SIZE)
    program.show(at)
    mm.munmap(at, HUGE)
    program.look()


@case(
    "W13",
    "collapse",
    WIPED,
    "small pages are made one huge page: those that the content left",
    needs_ram_scan="the kernel does not collapse a page that the witness refers to",
)
def collapse(program: Program) -> None:
    start = mm.mmap(0, 2 * HUGE, READ_WRITE, PRIVATE | mman.MAP_NORESERVE)
    at = -(-start // HUGE) * HUGE
    mm.madvise(at, HUGE, mman.MADV_NOHUGEPAGE)
    mm.mlock(at, HUGE)
    paint(at, HUGE // PAGE)
    mm.madvise(at, HUGE, mman.MADV_HUGEPAGE)
    mm.madvise(at, HUGE, mman.MADV_COLLAPSE)
    program.look()
    program.intact("the content", at, HUGE // PAGE)
    mm.munmap(at, HUGE)
    program.look()


@case(
    "W13",
    "copied-after-fork",
    WIPED,
    "a fork has shared it, and all of it is written to anew: the pages that the kernel has copied to others",
    needs_ram_scan="the kernel takes a page that the witness refers to for one that is in use",
)
def copied_after_fork(program: Program) -> None:
    at = _huge_page(program)
    written = Signal()
    child = program.fork(written.wait)
    ctypes.memset(at, 0, PAGE)  # its mapping becomes one of small pages
    written.give()
    program.reap(child)
    ctypes.memset(at, 0, HUGE)
    program.look()


# Folios of 64 KiB, which Linux maps page by page (6.8 and later, where they are switched on)


def _medium_pages(program: Program) -> int:
    """The address of 2 * PAGES locked and painted pages that lie in two folios of 64 KiB."""
    try:
        before = int(read(f"{_MEDIUM_PAGES}/stats/anon_fault_alloc"))
    except FileNotFoundError:
        program.cannot("this kernel has no huge pages of 64 KiB")
    start = mm.mmap(0, 4 * MEDIUM, READ_WRITE, PRIVATE)
    at = -(-start // MEDIUM) * MEDIUM
    mm.madvise(at, 2 * MEDIUM, mman.MADV_HUGEPAGE)
    mm.mlock(at, 2 * MEDIUM)
    paint(at, 2 * PAGES)
    if int(read(f"{_MEDIUM_PAGES}/stats/anon_fault_alloc")) < before + 2:
        program.cannot(f"the kernel gave no huge pages of 64 KiB: {_MEDIUM_PAGES}/enabled, or none is free")
    return at


@case("W13", "mthp-unmap-part", WIPED, "a part of 64 KiB folios is unmapped: exactly that part goes")
def mthp_unmap_part(program: Program) -> None:
    at = _medium_pages(program)
    program.show(at + SIZE // 2)
    mm.munmap(at + SIZE // 2, SIZE)
    program.look()
    program.intact("the pages before", at, PAGES // 2)
    program.intact("the pages after", at + SIZE // 2 + SIZE, PAGES // 2)


@case("W13", "mthp-unmap-holes", WIPED, "every other page of 64 KiB folios is unmapped")
def mthp_unmap_holes(program: Program) -> None:
    at = _medium_pages(program)
    for page in range(at, at + 2 * SIZE, 2 * PAGE):
        program.show(page, 1)
        mm.munmap(page, PAGE)
    program.look()
    for page in range(at + PAGE, at + 2 * SIZE, 2 * PAGE):
        program.intact("a page between", page, 1)


@case("W13", "mthp-exit", WIPED, "the program ends, with 64 KiB folios")
def mthp_exit(program: Program) -> None:
    program.reap(program.fork(lambda: program.show(_medium_pages(program))))


@case("W13", "mthp-child-exits", WIPED, "a child has copied every other page of 64 KiB folios, and exits")
def mthp_child_exits(program: Program) -> None:
    at = _medium_pages(program)

    def body() -> None:
        for page in range(at, at + 2 * SIZE, 2 * PAGE):
            paint(page, 1)
            program.show(page, 1)

    program.reap(program.fork(body))
    program.intact("the parent's own pages", at, 2 * PAGES)

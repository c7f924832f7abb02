# SPDX-License-Identifier: MIT
"""W1: munmap of a locked range, of a part of it, and of more than it."""

import os
import threading
import time

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import write
from mlockwipe.contract.foreign_abi import LOW, MLOCK, MUNMAP, X32_MLOCK, X32_MUNMAP, call_x32, i386
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program, refused
from mlockwipe.contract.steps import ring_with_buffers, write_protected
from mlockwipe.linux import mm, mman

HALF = PAGES // 2
QUARTER = PAGES // 4
LARGE = 512  # pages, which the kernel clears faster by a task in the memory than through /proc


@case("W1", "whole", WIPED, "a locked range is unmapped")
def whole(program: Program) -> None:
    at = program.secret()
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


def _part(program: Program, first: int, pages: int) -> None:
    at = program.secret()
    program.show(at + first * PAGE, pages)
    mm.munmap(at + first * PAGE, pages * PAGE)
    program.look()
    program.intact("the pages before the part", at, first)
    program.intact("the pages after the part", at + (first + pages) * PAGE, PAGES - first - pages)


@case("W1", "head", WIPED, "the first half goes, the rest keeps every byte")
def head(program: Program) -> None:
    _part(program, 0, HALF)


@case("W1", "tail", WIPED, "the last half goes, the rest keeps every byte")
def tail(program: Program) -> None:
    _part(program, HALF, HALF)


@case("W1", "middle", WIPED, "the middle goes and splits the mapping, both ends keep every byte")
def middle(program: Program) -> None:
    _part(program, QUARTER, HALF)


@case("W1", "mlock2", WIPED, "locked by mlock2 without flags")
def by_mlock2(program: Program) -> None:
    at = program.plain()
    mm.mlock2(at, SIZE, 0)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "map-locked", WIPED, "locked by MAP_LOCKED")
def by_map_locked(program: Program) -> None:
    at = mm.mmap(0, SIZE, READ_WRITE, PRIVATE | mman.MAP_LOCKED)
    paint(at, PAGES)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "unaligned-lock", WIPED, "mlock of one byte in each of two pages locks both pages whole")
def unaligned_lock(program: Program) -> None:
    at = program.plain()
    mm.mlock(at + PAGE - 1, 2)
    program.show(at, 2)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "unaligned-length", WIPED, "munmap of one byte takes its whole page")
def unaligned_length(program: Program) -> None:
    at = program.secret()
    program.show(at, 1)
    mm.munmap(at, 1)
    program.look()
    program.intact("the pages after the byte", at + PAGE, PAGES - 1)


@case("W1", "around", WIPED, "munmap of unlocked memory with a locked range in its middle")
def around(program: Program) -> None:
    at = program.plain()
    mm.mlock(at + QUARTER * PAGE, HALF * PAGE)
    program.show(at + QUARTER * PAGE, HALF)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "across-two-ranges", WIPED, "one munmap over two locked ranges with a hole between")
def across_two_ranges(program: Program) -> None:
    at = program.secret()
    hole = at + QUARTER * PAGE
    mm.munmap(hole, HALF * PAGE)
    program.show(at, QUARTER)
    program.show(hole + HALF * PAGE, QUARTER)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "half-still-locked", WIPED, "half was unlocked first: the half still locked")
def half_still_locked(program: Program) -> None:
    at = program.secret()
    mm.munlock(at, HALF * PAGE)
    program.show(at + HALF * PAGE, HALF)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "locked-again", WIPED, "unlocked and locked once more")
def locked_again(program: Program) -> None:
    at = program.secret()
    mm.munlock(at, SIZE)
    mm.mlock(at, SIZE)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case(
    "W1",
    "lock-failed-at-hole",
    WIPED,
    "mlock over a hole fails with ENOMEM, yet what lies before the hole is locked",
)
def lock_failed_at_hole(program: Program) -> None:
    at = program.plain()
    mm.munmap(at + HALF * PAGE, HALF * PAGE)
    program.check("mlock", refused(mm.mlock, at, SIZE), "ENOMEM")
    program.show(at, HALF)
    mm.munmap(at, HALF * PAGE)
    program.look()


@case("W1", "by-other-thread", WIPED, "one thread locks, another unmaps")
def by_other_thread(program: Program) -> None:
    at = program.secret()
    program.show(at)
    thread = threading.Thread(target=mm.munmap, args=(at, SIZE))
    thread.start()
    thread.join()
    program.look()


@case("W1", "locked-by-other-thread", WIPED, "a thread locks and is gone before another unmaps")
def locked_by_other_thread(program: Program) -> None:
    at = program.plain()
    thread = threading.Thread(target=mm.mlock, args=(at, SIZE))
    thread.start()
    thread.join()
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "threads-at-once", WIPED, "four threads unmap a range of their own at the same time")
def threads_at_once(program: Program) -> None:
    at = [program.secret(QUARTER) for _ in range(4)]
    for address in at:
        program.show(address, QUARTER)
    start = threading.Barrier(len(at))

    def unmap(address: int) -> None:
        start.wait()
        mm.munmap(address, QUARTER * PAGE)

    threads = [threading.Thread(target=unmap, args=(address,)) for address in at]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    program.look()


@case(
    "W1",
    "unlock-overflows",
    WIPED,
    "munlock of a length that the kernel rounds up to 0 succeeds, and unlocks nothing",
)
def unlock_overflows(program: Program) -> None:
    at = program.secret()
    program.check("munlock", refused(mm.munlock, at, (1 << 64) - 1), None)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "used-again", WIPED, "the address is mapped and locked anew, again and again")
def used_again(program: Program) -> None:
    at = program.secret(1)
    for _ in range(PAGES):
        program.show(at, 1)
        mm.munmap(at, PAGE)
        program.look()
        mm.mmap(at, PAGE, READ_WRITE, PRIVATE | mman.MAP_FIXED_NOREPLACE)
        mm.mlock(at, PAGE)
        paint(at, 1)


@case("W1", "undumpable", WIPED, "the program made itself undumpable after its first lock")
def undumpable(program: Program) -> None:
    from mlockwipe.linux.prctl import set_undumpable

    at = program.secret()
    set_undumpable()
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case(
    "W1",
    "compaction",
    WIPED,
    "the kernel moves locked pages to other places in memory: the places that they left",
    needs_ram_scan="a page that moves is another than the one in the pipe",
)
def compaction(program: Program) -> None:
    at = program.secret()
    try:
        write("/proc/sys/vm/compact_memory", b"1")
    except OSError as error:
        program.cannot(f"compaction can't be asked for: {error.strerror}")
    program.intact("the secret", at)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "registered-buffers", WIPED, "io_uring holds the unmapped pages, and lets go of them later")
def registered_buffers(program: Program) -> None:
    at = program.secret()
    program.show(at)
    ring = ring_with_buffers(program, at)
    mm.munmap(at, SIZE)
    ring.unregister()
    time.sleep(0.5)
    program.look()


@case("W1", "write-protected", WIPED, "a userfaultfd that nobody serves protects the range from being written")
def protected_by_userfaultfd(program: Program) -> None:
    at = program.secret()
    program.show(at)
    write_protected(program, at, SIZE)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "i386-unmap", WIPED, "an i386 call unmaps")
def i386_unmap(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    call(MUNMAP, at, SIZE)
    program.look()


@case("W1", "i386-lock", WIPED, "an i386 call locks")
def i386_lock(program: Program) -> None:
    call = i386(program)
    at = program.plain(flags=LOW)
    call(MLOCK, at, SIZE)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W1", "x32", WIPED, "an x32 call locks, another unmaps")
def x32(program: Program) -> None:
    at = program.plain()
    call_x32(program, X32_MLOCK, at, SIZE)
    program.show(at)
    call_x32(program, X32_MUNMAP, at, SIZE)
    program.look()


@case("W1", "false-dev-zero", WIPED, "in the root directory of the first lock, /dev/zero is another file")
def false_dev_zero(program: Program) -> None:
    if os.geteuid() != 0:
        program.cannot("only root may change its root directory")

    def body() -> None:
        import shutil
        import tempfile

        before, root = os.open("/", os.O_RDONLY), tempfile.mkdtemp()
        os.mkdir(f"{root}/dev")
        write(f"{root}/dev/zero", LARGE * PAGE * b"x", 0o644)
        os.chroot(root)
        at = program.secret(LARGE)
        os.fchdir(before)
        os.chroot(".")
        program.show(at)
        mm.munmap(at, LARGE * PAGE)
        program.look()
        shutil.rmtree(root)

    program.reap(program.fork(body))

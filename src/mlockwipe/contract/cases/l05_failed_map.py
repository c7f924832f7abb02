# SPDX-License-Identifier: MIT
"""L5: an mmap or mremap that fails takes nothing."""

import ctypes
import os

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.pattern import is_painted, paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program, refused
from mlockwipe.contract.steps import fails, limit_locking, seal
from mlockwipe.linux import mm, mman

HALF = PAGES // 2
MOVE = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED


def _maps_refused(program: Program, more: int) -> None:
    """MAP_FIXED over a secret with all that mmap refuses, and with the flags `more`."""
    at = program.secret()
    unreadable = os.open("file", os.O_WRONLY | os.O_CREAT, 0o600)
    pipe, _ = os.pipe()
    for error, length, flags, fd in (
        ("EBADF", SIZE, mman.MAP_PRIVATE, 999),
        ("EACCES", SIZE, mman.MAP_PRIVATE, unreadable),
        ("ENODEV", SIZE, mman.MAP_PRIVATE, pipe),
        ("EINVAL", SIZE, mman.MAP_ANONYMOUS, -1),  # neither shared nor private
        ("EINVAL", 0, PRIVATE, -1),
        ("ENOMEM", 1 << 60, PRIVATE, -1),
    ):
        fails(program, at, error, mm.mmap, at, length, READ_WRITE, flags | mman.MAP_FIXED | more, fd)
    fails(program, at, "EINVAL", mm.mmap, at + 8, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED | more)
    fails(program, at, "EEXIST", mm.mmap, at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED_NOREPLACE | more)


@case("L5", "map-refused", KEPT, "MAP_FIXED with files, flags and addresses that mmap refuses")
def map_refused(program: Program) -> None:
    _maps_refused(program, 0)


@case(
    "L5",
    "map-locked-refused",
    KEPT,
    "the same with MAP_LOCKED",
)
def map_locked_refused(program: Program) -> None:
    _maps_refused(program, mman.MAP_LOCKED)


@case("L5", "map-refused-read-meanwhile", KEPT, "another thread reads while MAP_FIXED is refused", shows=False)
def map_refused_read_meanwhile(program: Program) -> None:
    import threading

    at = program.secret(1)
    seen = {True}
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(is_painted(at, 1))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        refused(mm.mmap, at, PAGE, READ_WRITE, mman.MAP_PRIVATE | mman.MAP_FIXED, 999)
    done.set()
    reader.join()
    program.unharmed("what the other thread has read", seen == {True})


@case("L5", "map-locked-above-limit", KEPT, "MAP_FIXED | MAP_LOCKED over the limit of locked memory: EAGAIN")
def map_locked_above_limit(program: Program) -> None:
    at = program.secret()
    limit_locking(PAGES)
    fails(program, at, "EAGAIN", mm.mmap, at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED | mman.MAP_LOCKED)


@case("L5", "map-sealed", KEPT, "MAP_FIXED over a sealed range: EPERM")
def map_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at, SIZE)
    fails(program, at, "EPERM", mm.mmap, at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED)


@case("L5", "map-locked-sealed", KEPT, "MAP_FIXED | MAP_LOCKED over a sealed range: EPERM")
def map_locked_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at, SIZE)
    fails(program, at, "EPERM", mm.mmap, at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED | mman.MAP_LOCKED)


LARGE = 20 << 20


def _large_secret(program: Program) -> int:
    """More than any carrier saves as a matter of course; its first and its last pages are painted."""
    at = mm.mmap(0, LARGE, READ_WRITE, PRIVATE)
    if error := refused(mm.mlock, at, LARGE):
        program.cannot(f"mlock of {LARGE >> 20} MiB is refused with {error}: see `ulimit -l`")
    paint(at, PAGES)
    paint(at + LARGE - SIZE, PAGES)
    program.show(at)
    return at


def _is_whole(program: Program, at: int) -> None:
    program.look()
    program.intact("its beginning", at)
    program.intact("its end", at + LARGE - SIZE)


@case("L5", "map-refused-large", KEPT, "MAP_FIXED over 20 MiB with a descriptor that is none: EBADF")
def map_refused_large(program: Program) -> None:
    at = _large_secret(program)
    error = refused(mm.mmap, at, LARGE, READ_WRITE, mman.MAP_PRIVATE | mman.MAP_FIXED, 999)
    program.check("mmap", error, "EBADF")
    _is_whole(program, at)


@case("L5", "dontneed-large", KEPT, "MADV_DONTNEED and MADV_FREE of 20 MiB, which locked memory refuses: EINVAL")
def dontneed_large(program: Program) -> None:
    at = _large_secret(program)
    for advice in (mman.MADV_DONTNEED, mman.MADV_FREE):
        program.check("madvise", refused(mm.madvise, at, LARGE, advice), "EINVAL")
    _is_whole(program, at)


@case("L5", "move-onto-large-refused", KEPT, "mremap of nothing onto 20 MiB: EFAULT")
def move_onto_large_refused(program: Program) -> None:
    at = _large_secret(program)
    hole = mm.mmap(0, LARGE, mman.PROT_NONE, PRIVATE)
    mm.munmap(hole, LARGE)
    program.check("mremap", refused(mm.mremap, hole, LARGE, LARGE, MOVE, at), "EFAULT")
    _is_whole(program, at)


# mremap


@case("L5", "move-refused", KEPT, "mremap of a locked range, and onto one, in ways that it refuses")
def move_refused(program: Program) -> None:
    at = program.secret()
    other = program.plain()
    room = mm.mmap(0, 2 * SIZE, mman.PROT_NONE, PRIVATE)
    hole = mm.mmap(0, SIZE, mman.PROT_NONE, PRIVATE)
    mm.munmap(hole, SIZE)
    half = HALF * PAGE
    for error, source, length, flags, target in (
        ("EINVAL", at, SIZE, MOVE, room + 8),
        ("EINVAL", at, half, MOVE, at + PAGE),  # onto itself
        ("EINVAL", at, SIZE, mman.MREMAP_FIXED, room),  # may not move
        ("EINVAL", other + 8, SIZE, MOVE, at),
        ("EINVAL", other, SIZE, mman.MREMAP_FIXED, at),
        ("EFAULT", hole, SIZE, MOVE, at),
    ):
        fails(program, at, error, mm.mremap, source, length, length, flags, target)


@case("L5", "move-sealed", KEPT, "mremap of a sealed range: EPERM")
def move_sealed(program: Program) -> None:
    at = program.secret()
    room = mm.mmap(0, SIZE, mman.PROT_NONE, PRIVATE)
    seal(program, at, SIZE)
    fails(program, at, "EPERM", mm.mremap, at, SIZE, SIZE, MOVE, room)


@case("L5", "move-onto-sealed", KEPT, "mremap of another range onto a sealed one: EPERM")
def move_onto_sealed(program: Program) -> None:
    at = program.secret()
    other = program.plain()
    seal(program, at, SIZE)
    fails(program, at, "EPERM", mm.mremap, other, SIZE, SIZE, MOVE, at)
    program.intact("the other range", other)


@case(
    "L5",
    "half-moved-onto",
    KEPT,
    "mremap of two mappings, of which the second is sealed (Linux 6.17 moves the first)",
)
def half_moved_onto(program: Program) -> None:
    half = HALF * PAGE
    two, room = program.plain(), program.plain()
    mm.mprotect(two, half, mman.PROT_READ)
    if refused(mm.mremap, two, SIZE, SIZE, MOVE, room) is not None:
        program.cannot("this kernel moves one mapping at a time (several: Linux 6.17)")
    at = program.secret()
    other = program.plain()
    ctypes.memset(other, 7, half)
    seal(program, other + half, half)
    program.show(at + half, HALF)
    program.check("mremap", refused(mm.mremap, other, SIZE, SIZE, MOVE, at), "EPERM")
    program.look()
    program.intact("the half that nothing was moved to", at + half, HALF)
    moved = refused(mm.mincore, other, half) == "ENOMEM"
    holds = ctypes.string_at(at, half) == b"\7" * half if moved else is_painted(at, HALF)
    program.unharmed("the half that the first may have been moved to", holds)


@case("L5", "grow-no-room", KEPT, "mremap that may not move and has no room to grow: ENOMEM")
def grow_no_room(program: Program) -> None:
    at = program.secret()
    mm.mmap(at + HALF * PAGE, HALF * PAGE, mman.PROT_NONE, PRIVATE | mman.MAP_FIXED)
    fails(program, at, "ENOMEM", mm.mremap, at, HALF * PAGE, SIZE, pages=HALF)


@case("L5", "grow-above-limit", KEPT, "mremap that would grow over the limit of locked memory: EAGAIN")
def grow_above_limit(program: Program) -> None:
    at = program.secret()
    limit_locking(PAGES)
    fails(program, at, "EAGAIN", mm.mremap, at, SIZE, 2 * SIZE, mman.MREMAP_MAYMOVE)

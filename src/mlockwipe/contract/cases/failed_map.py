# SPDX-License-Identifier: MIT
"""L5: an mmap or mremap that fails takes nothing."""

import os

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.cases.failed_unmap import fails, seal
from mlockwipe.contract.cases.unlocked import limit_locking
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program
from mlockwipe.linux import mm

HALF = PAGES // 2
MOVE = mm.MREMAP_MAYMOVE | mm.MREMAP_FIXED


def _map_fails(
    program: Program, error: str, flags: int, prot: int = READ_WRITE, fd: int = -1, length: int = SIZE
) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.mmap(at, length, prot, flags | mm.MAP_FIXED, fd), error)


@case("L5", "map-no-file", KEPT, "MAP_FIXED of a descriptor that is not open: EBADF")
def map_no_file(program: Program) -> None:
    _map_fails(program, "EBADF", mm.MAP_PRIVATE, fd=999)


@case("L5", "map-locked-no-file", KEPT, "MAP_FIXED | MAP_LOCKED of a descriptor that is not open: EBADF")
def map_locked_no_file(program: Program) -> None:
    _map_fails(program, "EBADF", mm.MAP_PRIVATE | mm.MAP_LOCKED, fd=999)


@case("L5", "map-not-readable", KEPT, "MAP_FIXED of a file opened for writing only: EACCES")
def map_not_readable(program: Program) -> None:
    fd = os.open("file", os.O_WRONLY | os.O_CREAT, 0o600)
    _map_fails(program, "EACCES", mm.MAP_PRIVATE, fd=fd)


@case("L5", "map-no-memory-file", KEPT, "MAP_FIXED of a pipe: ENODEV")
def map_no_memory_file(program: Program) -> None:
    _map_fails(program, "ENODEV", mm.MAP_PRIVATE, fd=os.pipe()[0])


@case("L5", "map-neither", KEPT, "MAP_FIXED neither shared nor private: EINVAL")
def map_neither(program: Program) -> None:
    _map_fails(program, "EINVAL", mm.MAP_ANONYMOUS)


@case("L5", "map-too-much", KEPT, "MAP_FIXED of more than there are addresses: ENOMEM")
def map_too_much(program: Program) -> None:
    _map_fails(program, "ENOMEM", PRIVATE, length=1 << 60)


@case("L5", "map-no-replace", KEPT, "MAP_FIXED_NOREPLACE where something is mapped: EEXIST")
def map_no_replace(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mm.MAP_FIXED_NOREPLACE), "EEXIST")


@case(
    "L5", "map-locked-no-replace", KEPT, "MAP_FIXED_NOREPLACE | MAP_LOCKED where something is mapped: EEXIST"
)
def map_locked_no_replace(program: Program) -> None:
    at = program.secret()
    flags = PRIVATE | mm.MAP_FIXED_NOREPLACE | mm.MAP_LOCKED
    fails(program, at, lambda: mm.mmap(at, SIZE, READ_WRITE, flags), "EEXIST")


@case("L5", "map-locked-above-limit", KEPT, "MAP_FIXED | MAP_LOCKED over the limit of locked memory: EAGAIN")
def map_locked_above_limit(program: Program) -> None:
    at = program.secret()
    limit_locking(PAGES)
    fails(
        program, at, lambda: mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mm.MAP_FIXED | mm.MAP_LOCKED), "EAGAIN"
    )


@case("L5", "map-sealed", KEPT, "MAP_FIXED over a sealed range: EPERM")
def map_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at, SIZE)
    fails(program, at, lambda: mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mm.MAP_FIXED), "EPERM")


@case("L5", "map-locked-sealed", KEPT, "MAP_FIXED | MAP_LOCKED over a sealed range: EPERM")
def map_locked_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at, SIZE)
    fails(
        program, at, lambda: mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mm.MAP_FIXED | mm.MAP_LOCKED), "EPERM"
    )


# mremap


@case("L5", "move-unaligned", KEPT, "mremap to the inside of a page: EINVAL")
def move_unaligned(program: Program) -> None:
    at = program.secret()
    room = mm.mmap(0, 2 * SIZE, mm.PROT_NONE, PRIVATE)
    fails(program, at, lambda: mm.mremap(at, SIZE, SIZE, MOVE, room + 8), "EINVAL")


@case("L5", "move-onto-itself", KEPT, "mremap to an overlapping place: EINVAL")
def move_onto_itself(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.mremap(at, HALF * PAGE, HALF * PAGE, MOVE, at + PAGE), "EINVAL")


@case("L5", "move-may-not", KEPT, "mremap with MREMAP_FIXED, but without MREMAP_MAYMOVE: EINVAL")
def move_may_not(program: Program) -> None:
    at = program.secret()
    other = program.plain()
    fails(program, at, lambda: mm.mremap(other, SIZE, SIZE, mm.MREMAP_FIXED, at), "EINVAL")


@case("L5", "move-nothing-onto", KEPT, "mremap of what is not mapped onto the secret: EFAULT")
def move_nothing_onto(program: Program) -> None:
    at = program.secret()
    hole = mm.mmap(0, SIZE, mm.PROT_NONE, PRIVATE)
    mm.munmap(hole, SIZE)
    fails(program, at, lambda: mm.mremap(hole, SIZE, SIZE, MOVE, at), "EFAULT")


@case("L5", "move-unaligned-onto", KEPT, "mremap from the inside of a page onto the secret: EINVAL")
def move_unaligned_onto(program: Program) -> None:
    at = program.secret()
    other = program.plain()
    fails(program, at, lambda: mm.mremap(other + 8, SIZE, SIZE, MOVE, at), "EINVAL")


@case("L5", "move-sealed", KEPT, "mremap of a sealed range: EPERM")
def move_sealed(program: Program) -> None:
    at = program.secret()
    room = mm.mmap(0, SIZE, mm.PROT_NONE, PRIVATE)
    seal(program, at, SIZE)
    fails(program, at, lambda: mm.mremap(at, SIZE, SIZE, MOVE, room), "EPERM")


@case("L5", "shrink-sealed", KEPT, "mremap that would shrink a sealed range: EPERM")
def shrink_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at, SIZE)
    fails(program, at, lambda: mm.mremap(at, SIZE, HALF * PAGE), "EPERM")


@case("L5", "move-onto-sealed", KEPT, "mremap of another range onto a sealed one: EPERM")
def move_onto_sealed(program: Program) -> None:
    at = program.secret()
    other = program.plain()
    seal(program, at, SIZE)
    fails(program, at, lambda: mm.mremap(other, SIZE, SIZE, MOVE, at), "EPERM")
    program.intact("the other range", other)


@case("L5", "grow-no-room", KEPT, "mremap that may not move and has no room to grow: ENOMEM")
def grow_no_room(program: Program) -> None:
    at = program.secret()
    mm.mmap(at + HALF * PAGE, HALF * PAGE, mm.PROT_NONE, PRIVATE | mm.MAP_FIXED)
    fails(program, at, lambda: mm.mremap(at, HALF * PAGE, SIZE), "ENOMEM", HALF)


@case("L5", "grow-above-limit", KEPT, "mremap that would grow over the limit of locked memory: EAGAIN")
def grow_above_limit(program: Program) -> None:
    at = program.secret()
    limit_locking(PAGES)
    fails(program, at, lambda: mm.mremap(at, SIZE, 2 * SIZE, mm.MREMAP_MAYMOVE), "EAGAIN")

# SPDX-License-Identifier: MIT
"""W2: a new mapping takes the place of a locked one."""

import ctypes
import os

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import write
from mlockwipe.contract.foreign_abi import LOW, MMAP2, OLD_MMAP, i386
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program
from mlockwipe.linux import mm, mman, shm

HALF = PAGES // 2


def _replaced(program: Program, flags: int, prot: int = READ_WRITE, fd: int = -1) -> int:
    at = program.secret()
    program.show(at)
    mm.mmap(at, SIZE, prot, flags | mman.MAP_FIXED, fd)
    program.look()
    return at


@case("W2", "fixed", WIPED, "MAP_FIXED over it")
def fixed(program: Program) -> None:
    _replaced(program, PRIVATE)


@case("W2", "fixed-locked", WIPED, "MAP_FIXED with MAP_LOCKED over it")
def fixed_locked(program: Program) -> None:
    _replaced(program, PRIVATE | mman.MAP_LOCKED)


@case("W2", "fixed-inaccessible", WIPED, "an inaccessible reservation over it, as allocators give memory back")
def fixed_inaccessible(program: Program) -> None:
    _replaced(program, PRIVATE | mman.MAP_NORESERVE, mman.PROT_NONE)


@case("W2", "fixed-file", WIPED, "a file over it; the file's content is what the program then reads")
def fixed_file(program: Program) -> None:
    write("file", b"content." * (SIZE // 8))
    fd = os.open("file", os.O_RDONLY)
    at = _replaced(program, mman.MAP_PRIVATE, fd=fd)
    program.unharmed("the file", ctypes.string_at(at, SIZE) == b"content." * (SIZE // 8))


@case("W2", "fixed-middle", WIPED, "MAP_FIXED over the middle, both ends keep every byte")
def fixed_middle(program: Program) -> None:
    at = program.secret()
    middle = at + HALF // 2 * PAGE
    program.show(middle, HALF)
    mm.mmap(middle, HALF * PAGE, READ_WRITE, PRIVATE | mman.MAP_FIXED)
    program.look()
    program.intact("the pages before", at, HALF // 2)
    program.intact("the pages after", middle + HALF * PAGE, HALF // 2)


@case(
    "W2",
    "fixed-locked-middle",
    WIPED,
    "MAP_FIXED with MAP_LOCKED over the middle, both ends keep every byte",
)
def fixed_locked_middle(program: Program) -> None:
    at = program.secret()
    middle = at + HALF // 2 * PAGE
    program.show(middle, HALF)
    mm.mmap(middle, HALF * PAGE, READ_WRITE, PRIVATE | mman.MAP_FIXED | mman.MAP_LOCKED)
    program.look()
    program.intact("the pages before", at, HALF // 2)
    program.intact("the pages after", middle + HALF * PAGE, HALF // 2)


@case("W2", "shared-memory", WIPED, "shmat with SHM_REMAP over it")
def shared_memory(program: Program) -> None:
    at = program.secret()
    program.show(at)
    segment = mm.shmget(SIZE)
    try:
        mm.shmat(segment, at, shm.SHM_REMAP)
    finally:
        mm.shm_remove(segment)
    program.look()
    mm.shmdt(at)


def _map_over(program: Program, flags: int) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    call(MMAP2, at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED | flags, 0xFFFFFFFF)
    program.look()


@case("W2", "i386-fixed", WIPED, "an i386 call maps over it")
def i386_fixed(program: Program) -> None:
    _map_over(program, 0)


@case("W2", "i386-fixed-locked", WIPED, "an i386 call maps locked memory over it")
def i386_fixed_locked(program: Program) -> None:
    _map_over(program, mman.MAP_LOCKED)


@case("W2", "i386-old-mmap", WIPED, "the old i386 mmap, which takes its six arguments from memory")
def i386_old_mmap(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    block = mm.mmap(0, PAGE, READ_WRITE, PRIVATE | LOW)
    arguments = (ctypes.c_uint32 * 6)(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED, 0xFFFFFFFF, 0)
    ctypes.memmove(block, arguments, ctypes.sizeof(arguments))
    program.show(at)
    call(OLD_MMAP, block)
    program.look()

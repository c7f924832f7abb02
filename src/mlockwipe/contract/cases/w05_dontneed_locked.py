# SPDX-License-Identifier: MIT
"""W5: madvise(MADV_DONTNEED_LOCKED) drops pages and leaves the mapping locked."""

import errno
import os

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.pattern import is_zero
from mlockwipe.contract.program import PAGE, PAGES, SIZE, Program, refused
from mlockwipe.contract.steps import open_ring
from mlockwipe.linux import mm, mman

HALF = PAGES // 2


def _drop(program: Program, address: int, length: int) -> str | None:
    error = refused(mm.madvise, address, length, mman.MADV_DONTNEED_LOCKED)
    if error == "EINVAL":
        program.cannot("this kernel has no MADV_DONTNEED_LOCKED (Linux 5.18)")
    return error


@case("W5", "dontneed-locked", WIPED, "the pages go, the mapping reads as zeros and stays locked")
def dontneed_locked(program: Program) -> None:
    at = program.secret()
    program.show(at)
    program.check("madvise", _drop(program, at, SIZE), None)
    program.look()
    program.check("the range reads as zeros", is_zero(at, PAGES), True)


@case("W5", "dontneed-locked-part", WIPED, "half goes, the other keeps every byte")
def dontneed_locked_part(program: Program) -> None:
    at = program.secret()
    program.show(at, HALF)
    _drop(program, at, HALF * PAGE)
    program.look()
    program.intact("the other half", at + HALF * PAGE, HALF)


@case(
    "W5",
    "failed-at-hole",
    WIPED,
    "over a hole it fails with ENOMEM, yet the pages before and after the hole are gone",
)
def failed_at_hole(program: Program) -> None:
    at = program.secret()
    hole = at + HALF * PAGE
    mm.munmap(hole, PAGE)
    program.show(at, HALF)
    program.show(hole + PAGE, HALF - 1)
    program.check("madvise", _drop(program, at, SIZE), "ENOMEM")
    program.look()
    program.check("before the hole", is_zero(at, HALF), True)
    program.check("after the hole", is_zero(hole + PAGE, HALF - 1), True)


@case("W5", "process-madvise", WIPED, "process_madvise of the program by itself (Linux 6.13)")
def process_madvise(program: Program) -> None:
    at = program.secret()
    program.show(at)
    pidfd = os.pidfd_open(os.getpid())
    if refused(mm.process_madvise, pidfd, [(at, SIZE)], mman.MADV_DONTNEED_LOCKED) is not None:
        program.cannot("this kernel takes no such advice by a pidfd (Linux 6.13)")
    program.look()
    program.check("the range reads as zeros", is_zero(at, PAGES), True)


@case("W5", "wide-register", WIPED, "rubbish in the upper half of the advice's register, which the kernel ignores")
def wide_register(program: Program) -> None:
    at = program.secret()
    program.show(at)
    program.check("madvise", refused(mm.madvise_register, at, SIZE, 0x5EED << 32 | mman.MADV_DONTNEED_LOCKED), None)
    program.look()
    program.check("the range reads as zeros", is_zero(at, PAGES), True)


@case("W5", "io-uring-madvise", WIPED, "the same advice as a request to io_uring")
def io_uring_madvise(program: Program) -> None:
    at = program.secret()
    program.show(at)
    result = open_ring(program, 1).madvise(at, SIZE, mman.MADV_DONTNEED_LOCKED)
    if result == -errno.EINVAL:
        program.cannot("this kernel takes no such advice by io_uring (Linux 5.18)")
    program.check("madvise", result, 0)
    program.look()
    program.check("the range reads as zeros", is_zero(at, PAGES), True)

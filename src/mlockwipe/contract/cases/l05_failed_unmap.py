# SPDX-License-Identifier: MIT
"""L5: a munmap, brk or madvise that fails takes nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.files import read
from mlockwipe.contract.foreign_abi import LOW, MUNMAP, i386
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, SIZE, Program, refused
from mlockwipe.contract.steps import fails, grown_heap, seal
from mlockwipe.linux import mm, mman, shm

HALF = PAGES // 2


@case("L5", "unmap-refused", KEPT, "munmap with arguments that it refuses: EINVAL")
def unmap_refused(program: Program) -> None:
    at = program.secret()
    for address, length in ((at + 8, SIZE), (at, 0), (at, 1 << 62)):
        fails(program, at, "EINVAL", mm.munmap, address, length)


@case("L5", "drop-refused", KEPT, "madvise that is refused for locked memory, or always: EINVAL")
def drop_refused(program: Program) -> None:
    at = program.secret()
    for address, advice in ((at + 8, mman.MADV_DONTNEED_LOCKED), (at, mman.MADV_DONTNEED), (at, 999)):
        fails(program, at, "EINVAL", mm.madvise, address, SIZE, advice)


@case("L5", "shared-memory-refused", KEPT, "shmat of no segment, and where something is mapped: EINVAL")
def shared_memory_refused(program: Program) -> None:
    at = program.secret()
    segment = mm.shmget(SIZE)
    try:
        fails(program, at, "EINVAL", mm.shmat, segment, at)
    finally:
        mm.shm_remove(segment)
    fails(program, at, "EINVAL", mm.shmat, -1, at, shm.SHM_REMAP)


@case("L5", "unmap-no-more-mappings", KEPT, "munmap that would split a mapping at vm.max_map_count: ENOMEM")
def unmap_no_more_mappings(program: Program) -> None:
    at = program.secret()
    program.show(at)
    with _no_more_mappings(program):  # nor memory for more than the call
        error = refused(mm.munmap, at + PAGE, PAGE)
    program.check("the call", error, "ENOMEM")
    program.look()
    program.intact("the secret", at)


@contextmanager
def _no_more_mappings(program: Program) -> Iterator[None]:
    """One mapping is split, page by page, until the kernel refuses to."""
    count = int(read("/proc/sys/vm/max_map_count"))
    if count > 1 << 18:
        program.cannot(f"vm.max_map_count is {count}: it takes too long to reach")
    size = (count + 2) * PAGE
    at = mm.mmap(0, size, mman.PROT_NONE, PRIVATE | mman.MAP_NORESERVE)
    refused(mm.munmap, at + 1, PAGE)  # what Python needs for an error it has then
    for page in range(at + PAGE, at + size, 2 * PAGE):
        if refused(mm.mprotect, page, PAGE, mman.PROT_READ) == "ENOMEM":
            break
    else:
        raise RuntimeError("the kernel sets no limit")
    yield
    mm.munmap(at, size)


@case("L5", "unmap-sealed", KEPT, "munmap of a sealed range: EPERM")
def unmap_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at, SIZE)
    fails(program, at, "EPERM", mm.munmap, at, SIZE)


@case(
    "L5",
    "unmap-half-sealed",
    KEPT,
    "munmap of a range whose second half is sealed: EPERM, and the first half stays",
)
def unmap_half_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at + HALF * PAGE, HALF * PAGE)
    fails(program, at, "EPERM", mm.munmap, at, SIZE)


@case("L5", "unmap-sealed-inaccessible", KEPT, "munmap of a sealed inaccessible range: EPERM")
def unmap_sealed_inaccessible(program: Program) -> None:
    at = program.secret()
    program.show(at)
    mm.mprotect(at, SIZE, mman.PROT_NONE)
    seal(program, at, SIZE)
    program.check("munmap", refused(mm.munmap, at, SIZE), "EPERM")
    program.look()


@case("L5", "heap-below-start", KEPT, "brk below the heap's start changes nothing")
def heap_below_start(program: Program) -> None:
    at = grown_heap()
    mm.mlock(at, SIZE)
    paint(at, PAGES)
    program.show(at)
    program.check("the heap's end", mm.brk(PAGE), at + SIZE)
    program.look()
    program.intact("the secret", at)


@case("L5", "process-madvise-part", KEPT, "process_madvise of unlocked pages, and of locked ones, which it refuses")
def process_madvise_part(program: Program) -> None:
    at = program.plain()
    locked = at + HALF * PAGE
    mm.mlock(locked, HALF * PAGE)
    program.show(locked, HALF)
    pidfd = os.pidfd_open(os.getpid())
    try:
        done = mm.process_madvise(pidfd, [(at, HALF * PAGE), (locked, HALF * PAGE)], mman.MADV_DONTNEED)
    except OSError:
        program.cannot("this kernel takes no such advice by a pidfd (Linux 6.13)")
    program.check("so much is done", done, HALF * PAGE)
    program.look()
    program.intact("the locked half", locked, HALF)


@case("L5", "i386-unmap-unaligned", KEPT, "an i386 munmap from inside a page: EINVAL")
def i386_unmap_unaligned(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    program.check("munmap", refused(call, MUNMAP, at + 8, SIZE), "EINVAL")
    program.look()
    program.intact("the secret", at)

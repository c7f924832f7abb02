# SPDX-License-Identifier: MIT
"""L5: a munmap, brk or madvise that fails takes nothing."""

from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.cases.heap import grown_heap
from mlockwipe.contract.files import read
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, SIZE, Program, refused
from mlockwipe.linux import mm

HALF = PAGES // 2


def fails(
    program: Program, address: int, call: Callable[[], object], error: str, pages: int = PAGES
) -> None:
    """The pages at `address` are intact after a call that fails with `error`."""
    program.show(address, pages)
    program.check("the call", refused(call), error)
    program.look()
    program.intact("the secret", address, pages)


@case("L5", "unmap-unaligned", KEPT, "munmap from inside a page: EINVAL")
def unmap_unaligned(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.munmap(at + 8, SIZE), "EINVAL")


@case("L5", "unmap-nothing", KEPT, "munmap of no length: EINVAL")
def unmap_nothing(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.munmap(at, 0), "EINVAL")


@case("L5", "unmap-too-much", KEPT, "munmap beyond the end of all addresses: EINVAL")
def unmap_too_much(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.munmap(at, 1 << 62), "EINVAL")


@case("L5", "unmap-no-more-mappings", KEPT, "munmap that would split a mapping at vm.max_map_count: ENOMEM")
def unmap_no_more_mappings(program: Program) -> None:
    at = program.secret()
    _use_up_mappings(program)
    fails(program, at, lambda: mm.munmap(at + PAGE, PAGE), "ENOMEM")


def _use_up_mappings(program: Program) -> None:
    """Split one mapping, page by page, until the kernel refuses to."""
    count = int(read("/proc/sys/vm/max_map_count"))
    if count > 1 << 18:
        program.cannot(f"vm.max_map_count is {count}: it takes too long to reach")
    at = mm.mmap(0, (count + 2) * PAGE, mm.PROT_NONE, PRIVATE | mm.MAP_NORESERVE)
    for page in range(at + PAGE, at + (count + 1) * PAGE, 2 * PAGE):
        if refused(mm.mprotect, page, PAGE, mm.PROT_READ) == "ENOMEM":
            return
    raise RuntimeError("the kernel sets no limit")


def seal(program: Program, address: int, length: int) -> None:
    """mseal, or the end of the case."""
    if refused(mm.mseal, address, length) == "ENOSYS":
        program.cannot("this kernel has no mseal (Linux 6.10)")


@case("L5", "unmap-sealed", KEPT, "munmap of a sealed range: EPERM")
def unmap_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at, SIZE)
    fails(program, at, lambda: mm.munmap(at, SIZE), "EPERM")


@case(
    "L5",
    "unmap-half-sealed",
    KEPT,
    "munmap of a range whose second half is sealed: EPERM, and the first half stays",
)
def unmap_half_sealed(program: Program) -> None:
    at = program.secret()
    seal(program, at + HALF * PAGE, HALF * PAGE)
    fails(program, at, lambda: mm.munmap(at, SIZE), "EPERM")


@case("L5", "unmap-sealed-inaccessible", KEPT, "munmap of a sealed inaccessible range: EPERM")
def unmap_sealed_inaccessible(program: Program) -> None:
    at = program.secret()
    program.show(at)
    mm.mprotect(at, SIZE, mm.PROT_NONE)
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


@case("L5", "drop-unaligned", KEPT, "madvise(MADV_DONTNEED_LOCKED) from inside a page: EINVAL")
def drop_unaligned(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.madvise(at + 8, SIZE, mm.MADV_DONTNEED_LOCKED), "EINVAL")


@case("L5", "drop-locked", KEPT, "madvise(MADV_DONTNEED) of locked memory: EINVAL")
def drop_locked(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.madvise(at, SIZE, mm.MADV_DONTNEED), "EINVAL")


@case("L5", "shared-memory-nonexistent", KEPT, "shmat with SHM_REMAP of a segment that is not there: EINVAL")
def shared_memory_nonexistent(program: Program) -> None:
    at = program.secret()
    fails(program, at, lambda: mm.shmat(-1, at, mm.SHM_REMAP), "EINVAL")


@case("L5", "shared-memory-in-the-way", KEPT, "shmat without SHM_REMAP where something is mapped: EINVAL")
def shared_memory_in_the_way(program: Program) -> None:
    at = program.secret()
    segment = mm.shmget(SIZE)
    try:
        fails(program, at, lambda: mm.shmat(segment, at), "EINVAL")
    finally:
        mm.shm_remove(segment)

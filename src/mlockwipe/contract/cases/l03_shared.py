# SPDX-License-Identifier: MIT
"""L3: memory that others share."""

import os
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.pattern import is_zero, paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program
from mlockwipe.linux import mm, mman


def _released(program: Program, address: int, release: Callable[[], object] = lambda: None) -> None:
    """A child locks the shared range, shows it and releases it; its parent still finds every byte."""
    paint(address, PAGES)

    def body() -> None:
        mm.mlock(address, SIZE)
        program.show(address)
        release()

    program.reap(program.fork(body))
    program.intact("what the parent shares", address)


def _anonymous() -> int:
    return mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED | mman.MAP_ANONYMOUS)


@case("L3", "anonymous-exit", KEPT, "MAP_SHARED | MAP_ANONYMOUS, when one of two ends")
def anonymous_exit(program: Program) -> None:
    _released(program, _anonymous())


@case("L3", "anonymous-unmap", KEPT, "MAP_SHARED | MAP_ANONYMOUS, when one of two unmaps it")
def anonymous_unmap(program: Program) -> None:
    at = _anonymous()
    _released(program, at, lambda: mm.munmap(at, SIZE))


@case("L3", "anonymous-mapped-over", KEPT, "MAP_SHARED | MAP_ANONYMOUS, when one of two maps over it")
def anonymous_mapped_over(program: Program) -> None:
    at = _anonymous()
    _released(program, at, lambda: mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED))


@case("L3", "anonymous-exec", KEPT, "MAP_SHARED | MAP_ANONYMOUS, when one of two replaces itself")
def anonymous_exec(program: Program) -> None:
    _released(program, _anonymous(), program.exec_looker)


@case("L3", "memfd", KEPT, "a memfd, when one of two ends")
def memfd(program: Program) -> None:
    fd = os.memfd_create("shared")
    os.ftruncate(fd, SIZE)
    _released(program, mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd))


@case("L3", "memfd-descriptor-only", KEPT, "a memfd that is open elsewhere, but mapped by no other")
def memfd_descriptor_only(program: Program) -> None:
    fd = os.memfd_create("shared")
    os.ftruncate(fd, SIZE)

    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd)
        mm.mlock(at, SIZE)
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))
    program.intact("what the descriptor holds", mm.mmap(0, SIZE, mman.PROT_READ, mman.MAP_SHARED, fd))


@case("L3", "sysv", KEPT, "a System V segment, when one of two ends")
def sysv(program: Program) -> None:
    segment = mm.shmget(SIZE)
    try:
        at = mm.shmat(segment)
    finally:
        mm.shm_remove(segment)
    _released(program, at)


@case("L3", "two-mappings", KEPT, "shared pages mapped twice by one program, which unmaps one")
def two_mappings(program: Program) -> None:
    fd = os.memfd_create("shared")
    os.ftruncate(fd, SIZE)
    first, second = (mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd) for _ in range(2))
    mm.mlock(first, SIZE)
    paint(first, PAGES)
    program.show(first)
    mm.munmap(first, SIZE)
    program.look()
    program.intact("the other mapping", second)


@case("L3", "zero-page", KEPT, "a page that was only ever read is the kernel's one page of zeros", shows=False)
def zero_page(program: Program) -> None:
    def body() -> None:
        at = mm.mmap(0, SIZE, mman.PROT_READ, PRIVATE)
        mm.mlock(at, SIZE)
        program.check("locked pages never written", is_zero(at, PAGES), True)

    program.reap(program.fork(body))
    program.unharmed("the page of zeros", is_zero(mm.mmap(0, SIZE, mman.PROT_READ, PRIVATE), PAGES))


@case("L3", "memfd-secret", KEPT, "memfd_secret, locked by nature and wiped by the kernel itself", shows=False)
def memfd_secret(program: Program) -> None:
    try:
        fd = mm.memfd_secret()
    except OSError as error:
        program.cannot(f"this kernel has no memfd_secret ({error.strerror})")
    os.ftruncate(fd, SIZE)
    at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd)
    paint(at, PAGES)

    def body() -> None:
        program.secret()
        program.intact("what the child shares", at)

    program.reap(program.fork(body))
    program.intact("what the parent shares", at)
    mm.munmap(at + SIZE - PAGE, PAGE)
    program.intact("what is still mapped", at, PAGES - 1)


@case(
    "L3",
    "ksm",
    KEPT,
    "pages that the kernel has merged with those of another process",
    needs_ram_scan="a merged page is another than the one in the pipe",
)
def ksm(program: Program) -> None:
    import time

    at = program.plain()
    other = program.secret()
    mm.madvise(at, SIZE, mman.MADV_MERGEABLE)
    mm.madvise(other, SIZE, mman.MADV_MERGEABLE)
    time.sleep(2)
    mm.munmap(other, SIZE)
    program.intact("the pages of equal content", at)

# SPDX-License-Identifier: MIT
"""L1: memory that was unlocked before its release, or was never locked, is left alone. The off switch."""

import os
import signal

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.foreign_abi import LOW, MUNLOCK, i386
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program, refused
from mlockwipe.contract.steps import grown_heap, limit_locking, lock_all, sleeping_threads
from mlockwipe.linux import mm, mman

HALF = PAGES // 2


def _released(program: Program, address: int, pages: int = PAGES) -> None:
    program.show(address, pages)
    mm.munmap(address, pages * PAGE)
    program.look()


@case("L1", "never-locked-exit", KEPT, "a program that locks nothing ends")
def never_locked_exit(program: Program) -> None:
    program.reap(program.fork(lambda: program.show(program.plain())))


@case("L1", "never-locked-unmap", KEPT, "a program that locks nothing unmaps")
def never_locked_unmap(program: Program) -> None:
    _released(program, program.plain())


@case("L1", "other-range-unmap", KEPT, "a range never locked is unmapped; the program has locked another")
def other_range_unmap(program: Program) -> None:
    program.secret()
    _released(program, program.plain())


@case("L1", "other-range-exit", KEPT, "a range never locked when a program that has locked another ends")
def other_range_exit(program: Program) -> None:
    def body() -> None:
        program.secret()
        program.show(program.plain())

    program.reap(program.fork(body))


@case(
    "L1",
    "other-range-exec",
    KEPT,
    "a range never locked when a program that has locked another replaces itself",
)
def other_range_exec(program: Program) -> None:
    program.secret()
    program.show(program.plain())
    program.exec_looker()


@case("L1", "length-overflows", KEPT, "mlock2 of a length that the kernel rounds up to 0 succeeds, and locks nothing")
def length_overflows(program: Program) -> None:
    at = program.plain()
    sleeping_threads(1)
    program.check("mlock2", refused(mm.mlock2, at, (1 << 64) - 1, 0), None)
    _released(program, at)


@case("L1", "neighbours", KEPT, "the unlocked pages on both sides of locked ones")
def neighbours(program: Program) -> None:
    at = program.plain()
    mm.mlock(at + PAGE, (PAGES - 2) * PAGE)
    program.show(at, 1)
    program.show(at + SIZE - PAGE, 1)
    mm.munmap(at, SIZE)
    program.look()


@case("L1", "munlock-unmap", KEPT, "unlocked, then unmapped")
def munlock_unmap(program: Program) -> None:
    at = program.secret()
    mm.munlock(at, SIZE)
    _released(program, at)


@case("L1", "munlock-exit", KEPT, "unlocked, then the program ends")
def munlock_exit(program: Program) -> None:
    program.dies(lambda at: mm.munlock(at, SIZE))


@case("L1", "munlock-sigkill", KEPT, "unlocked, then the program is killed")
def munlock_sigkill(program: Program) -> None:
    def release(at: int) -> None:
        mm.munlock(at, SIZE)
        os.kill(os.getpid(), signal.SIGKILL)

    program.dies(release, -signal.SIGKILL)


@case("L1", "munlock-exec", KEPT, "unlocked, then the program replaces itself")
def munlock_exec(program: Program) -> None:
    at = program.secret()
    mm.munlock(at, SIZE)
    program.show(at)
    program.exec_looker()


@case("L1", "munlock-once", KEPT, "locked twice, unlocked once: locks do not count")
def munlock_once(program: Program) -> None:
    at = program.secret()
    mm.mlock(at, SIZE)
    mm.munlock(at, SIZE)
    _released(program, at)


@case("L1", "munlock-one-byte", KEPT, "munlock of one byte unlocks its whole page")
def munlock_one_byte(program: Program) -> None:
    at = program.secret()
    mm.munlock(at + PAGE - 1, 1)
    _released(program, at, 1)


@case("L1", "munlock-half", KEPT, "the half that was unlocked, of a range that is unmapped whole")
def munlock_half(program: Program) -> None:
    at = program.secret()
    mm.munlock(at, HALF * PAGE)
    program.show(at, HALF)
    mm.munmap(at, SIZE)
    program.look()


@case("L1", "munlock-half-exit", KEPT, "the half that was unlocked, when the program ends")
def munlock_half_exit(program: Program) -> None:
    def body() -> None:
        at = program.secret()
        mm.munlock(at, HALF * PAGE)
        program.show(at, HALF)

    program.reap(program.fork(body))


@case("L1", "munlock-moved", KEPT, "moved, unlocked at the new place")
def munlock_moved(program: Program) -> None:
    room = mm.mmap(0, SIZE, mman.PROT_NONE, PRIVATE)
    moved = mm.mremap(program.secret(), SIZE, SIZE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, room)
    mm.munlock(moved, SIZE)
    _released(program, moved)


@case("L1", "munlockall", KEPT, "munlockall, then unmapped")
def munlockall(program: Program) -> None:
    at = program.secret()
    mm.munlockall()
    _released(program, at)


@case("L1", "munlockall-exit", KEPT, "mlockall, munlockall, and the program ends")
def munlockall_exit(program: Program) -> None:
    def body() -> None:
        at = program.plain()
        lock_all(program, mman.MCL_CURRENT | mman.MCL_FUTURE)
        mm.munlockall()
        program.show(at)

    program.reap(program.fork(body))


@case("L1", "future-ended", KEPT, "mapped after munlockall has ended MCL_FUTURE")
def future_ended(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    mm.munlockall()
    _released(program, program.plain())


@case("L1", "before-future", KEPT, "mapped before mlockall(MCL_FUTURE), which locks nothing that is there")
def before_future(program: Program) -> None:
    at = program.plain()
    mm.mlockall(mman.MCL_FUTURE)
    _released(program, at)


@case(
    "L1",
    "heap-after-current",
    KEPT,
    "MCL_CURRENT: pages by which the heap grows later",
)
def heap_after_current(program: Program) -> None:
    lock_all(program, mman.MCL_CURRENT)
    at = grown_heap()
    paint(at, PAGES)
    program.show(at)
    mm.brk(at)
    program.look()


@case("L1", "lock-refused", KEPT, "mlock fails with ENOMEM at the limit: nothing was locked")
def lock_refused(program: Program) -> None:
    def body() -> None:
        limit_locking(HALF)
        at = program.plain()
        program.check("mlock", refused(mm.mlock, at, SIZE), "ENOMEM")
        program.show(at)

    program.reap(program.fork(body))


@case("L1", "lock-not-allowed", KEPT, "mlock fails with EPERM where the limit is zero: nothing was locked")
def lock_not_allowed(program: Program) -> None:
    limit_locking(0)
    at = program.plain()
    program.check("mlock", refused(mm.mlock, at, SIZE), "EPERM")
    _released(program, at)


@case(
    "L1",
    "lock-invalid",
    KEPT,
    "mlock2 with a flag that does not exist fails with EINVAL: nothing was locked",
)
def lock_invalid(program: Program) -> None:
    at = program.plain()
    program.check("mlock2", refused(mm.mlock2, at, SIZE, 64), "EINVAL")
    _released(program, at)


@case("L1", "mapped-anew", KEPT, "unlocked memory at an address that was locked before")
def mapped_anew(program: Program) -> None:
    at = program.secret()
    mm.munmap(at, SIZE)
    mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED)
    paint(at, PAGES)
    _released(program, at)


@case("L1", "mapped-over", KEPT, "unlocked memory that took the place of locked memory by MAP_FIXED")
def mapped_over(program: Program) -> None:
    at = program.secret()
    mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED)
    paint(at, PAGES)
    _released(program, at)


@case(
    "L1",
    "lock-gone-after-exec",
    KEPT,
    "an exec ends every lock: memory of the new program, which locks nothing",
)
def lock_gone_after_exec(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    program.secret()
    program.exec_again(never_locked_unmap)


@case("L1", "child-munlocks", KEPT, "a child that unlocks its inherited copy has said that it is done with it")
def child_munlocks(program: Program) -> None:
    at = program.secret()

    def body() -> None:
        paint(at, PAGES)
        mm.munlock(at, SIZE)
        program.show(at)

    program.reap(program.fork(body))
    program.intact("the parent's own pages", at)


@case("L1", "unlocked-before-fork", KEPT, "the parent unlocked before it forked: the child's copy")
def unlocked_before_fork(program: Program) -> None:
    at = program.secret()
    mm.munlock(at, SIZE)

    def body() -> None:
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))


@case("L1", "child-own-memory", KEPT, "memory that a child of a locking program maps itself")
def child_own_memory(program: Program) -> None:
    program.secret()
    program.reap(program.fork(lambda: program.show(program.plain())))


@case("L1", "moved-onto", KEPT, "unlocked memory that was moved to where locked memory was")
def moved_onto(program: Program) -> None:
    at = program.secret()
    mm.mremap(program.plain(), SIZE, SIZE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, at)
    program.intact("the pages that moved", at)
    _released(program, at)


@case("L1", "i386-munlock", KEPT, "an i386 call unlocks")
def i386_munlock(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    call(MUNLOCK, at, SIZE)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()

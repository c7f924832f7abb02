# SPDX-License-Identifier: MIT
"""W12: what a child inherits of locked memory. The kernel does not pass the lock on; the contract does.

A child writes its copy before it shows it, and so has pages of its own: see Program.show.
"""

import ctypes
import os
import signal
from collections.abc import Callable

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import (
    PAGE,
    PAGES,
    PRIVATE,
    READ_WRITE,
    SIZE,
    Program,
    Signal,
    refused,
    sleep_for_ever,
)
from mlockwipe.contract.task_states import wait_until
from mlockwipe.linux import mm, mman

HALF = PAGES // 2


def inherits(program: Program, release: Callable[[int], object], status: int | None = 0) -> None:
    """A child shows its copy of a secret and releases it by `release(address)`; the parent keeps its own."""
    at = program.secret()

    def body() -> None:
        paint(at, PAGES)
        program.show(at)
        release(at)

    program.reap(program.fork(body), status)
    program.intact("the parent's own pages", at)


@case("W12", "child-exits", WIPED, "the child exits")
def child_exits(program: Program) -> None:
    inherits(program, lambda at: None)


@case("W12", "child-killed", WIPED, "the child kills itself")
def child_killed(program: Program) -> None:
    inherits(program, lambda at: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL)


@case("W12", "child-execs", WIPED, "the child executes another program, as every shell command does")
def child_execs(program: Program) -> None:
    inherits(program, lambda at: program.exec_looker())


@case("W12", "child-unmaps", WIPED, "the child unmaps its copy")
def child_unmaps(program: Program) -> None:
    def release(at: int) -> None:
        mm.munmap(at, SIZE)
        program.look()

    inherits(program, release)


@case("W12", "child-unmaps-part", WIPED, "the child unmaps half of its copy and keeps the rest")
def child_unmaps_part(program: Program) -> None:
    at = program.secret()

    def body() -> None:
        paint(at, PAGES)
        program.show(at, HALF)
        mm.munmap(at, HALF * PAGE)
        program.look()
        program.intact("the child's other half", at + HALF * PAGE, HALF)

    program.reap(program.fork(body))
    program.intact("the parent's own pages", at)


@case("W12", "child-maps-over", WIPED, "the child maps over its copy")
def child_maps_over(program: Program) -> None:
    def release(at: int) -> None:
        mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED)
        program.look()

    inherits(program, release)


@case("W12", "child-moves", WIPED, "the child moves its copy, then exits")
def child_moves(program: Program) -> None:
    at = program.secret()

    def body() -> None:
        room = mm.mmap(0, SIZE, mman.PROT_NONE, PRIVATE)
        moved = mm.mremap(at, SIZE, SIZE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, room)
        paint(moved, PAGES)
        program.show(moved)

    program.reap(program.fork(body))
    program.intact("the parent's own pages", at)


@case(
    "W12",
    "child-drops",
    WIPED,
    "the child drops its pages by MADV_DONTNEED, which its copy, not locked, allows",
)
def child_drops(program: Program) -> None:
    def release(at: int) -> None:
        mm.madvise(at, SIZE, mman.MADV_DONTNEED)
        program.look()

    inherits(program, release)


@case("W12", "child-locks", WIPED, "the child locks its copy anew, then exits")
def child_locks(program: Program) -> None:
    inherits(program, lambda at: mm.mlock(at, SIZE))


@case("W12", "child-hides", WIPED, "the child makes its copy inaccessible, then exits")
def child_hides(program: Program) -> None:
    inherits(program, lambda at: mm.mprotect(at, SIZE, mman.PROT_NONE))


@case("W12", "child-half-unlocked", WIPED, "the child munlocks half of its copy: the other half when it exits")
def child_half_unlocked(program: Program) -> None:
    at = program.secret()

    def body() -> None:
        paint(at, PAGES)
        program.show(at + HALF * PAGE, HALF)
        mm.munlock(at, HALF * PAGE)

    program.reap(program.fork(body))


@case(
    "W12",
    "half-unlocked-before",
    WIPED,
    "half was unlocked before the fork: the child's copy of the other half",
)
def half_unlocked_before(program: Program) -> None:
    at = program.secret()
    mm.munlock(at, HALF * PAGE)

    def body() -> None:
        paint(at, PAGES)
        program.show(at + HALF * PAGE, HALF)

    program.reap(program.fork(body))


@case(
    "W12",
    "unlocked-after",
    WIPED,
    "the parent unlocks after the fork: the child's copy is still one of a secret",
)
def unlocked_after(program: Program) -> None:
    at = program.secret()
    locked = Signal()

    def body() -> None:
        locked.wait()
        paint(at, PAGES)
        program.show(at)

    pid = program.fork(body)
    mm.munlock(at, SIZE)
    locked.give()
    program.reap(pid)


@case("W12", "lockall-child", WIPED, "the child of a program that called mlockall(MCL_FUTURE)")
def lockall_child(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    inherits(program, lambda at: None)


@case("W12", "raw-clone", WIPED, "a child made by clone itself, past the C library")
def raw_clone(program: Program) -> None:
    from mlockwipe.linux.clone import raw_fork

    at = program.secret()

    def body() -> None:
        paint(at, PAGES)
        program.show(at)

    pid = raw_fork(signal.SIGCHLD)
    if pid == 0:
        program.child(body)
    program.reap(pid)
    program.intact("the parent's own pages", at)


@case(
    "W12", "child-guards", WIPED, "the child puts guard pages in place of its copy, which is not locked (Linux 6.13)"
)
def child_guards(program: Program) -> None:
    def release(at: int) -> None:
        if refused(mm.madvise, at, SIZE, mman.MADV_GUARD_INSTALL) is not None:
            program.cannot("this kernel has no MADV_GUARD_INSTALL (Linux 6.13)")
        program.look()

    inherits(program, release)


@case("W12", "child-moves-by-userfaultfd", WIPED, "the child moves its copy by UFFDIO_MOVE, then exits (Linux 6.8)")
def child_moves_by_userfaultfd(program: Program) -> None:
    import fcntl

    from mlockwipe.linux import userfaultfd

    at = program.secret()

    def body() -> None:
        paint(at, PAGES)
        room = mm.mmap(0, SIZE, READ_WRITE, PRIVATE)
        try:
            fd = userfaultfd.open_own(userfaultfd.FEATURE_MOVE)
            fcntl.ioctl(fd, userfaultfd.REGISTER, userfaultfd.registration(room, SIZE))
        except OSError as error:
            program.cannot(f"this kernel has no userfaultfd that moves pages: {error.strerror} (Linux 6.8)")
        fcntl.ioctl(fd, userfaultfd.MOVE, userfaultfd.move(room, at, SIZE))
        program.intact("the pages that moved", room)
        program.show(room)

    program.reap(program.fork(body))
    program.intact("the parent's own pages", at)


@case(
    "W12",
    "dontfork",
    WIPED,
    "MADV_DONTFORK: the child has no copy, and its end takes nothing from the parent",
)
def dontfork(program: Program) -> None:
    at = program.secret()
    mm.madvise(at, SIZE, mman.MADV_DONTFORK)
    program.reap(
        program.fork(lambda: program.check("the range in the child", refused(mm.mincore, at, SIZE), "ENOMEM"))
    )
    program.intact("the parent's own pages", at)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case(
    "W12",
    "wipeonfork",
    WIPED,
    "MADV_WIPEONFORK: the child finds zeros; what it then writes there is no secret's copy",
)
def wipeonfork(program: Program) -> None:
    from mlockwipe.contract.pattern import is_zero

    at = program.secret()
    mm.madvise(at, SIZE, mman.MADV_WIPEONFORK)
    program.reap(program.fork(lambda: program.check("the child finds zeros", is_zero(at, PAGES), True)))
    program.intact("the parent's own pages", at)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W12", "parent-exits-later", WIPED, "the child is gone: the parent's own pages when it exits")
def parent_exits_later(program: Program) -> None:
    def parent() -> None:
        at = program.secret()
        program.reap(program.fork(lambda: None))
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(parent))


@case("W12", "child-killed-asleep", WIPED, "the child is killed while it sleeps")
def child_killed_asleep(program: Program) -> None:
    at = program.secret()
    shown = Signal()

    def body() -> None:
        paint(at, PAGES)
        program.show(at)
        shown.give()
        sleep_for_ever()

    pid = program.fork(body)
    shown.wait()
    wait_until("S", pid)
    os.kill(pid, signal.SIGKILL)
    program.reap(pid, -signal.SIGKILL)
    program.intact("the parent's own pages", at)


@case(
    "W12",
    "child-copy-refused",
    WIPED,
    "a copy-on-write fault has copied a page for which the child's control group has no room: the kernel kills it",
    needs_ram_scan="the page was never mapped",
)
def child_copy_refused(program: Program) -> None:
    from mlockwipe.contract.memory_cgroup import memory_cgroup

    pages = 1024
    at = program.secret(pages)

    with memory_cgroup(pages * PAGE // 2) as join:
        if join is None:
            program.cannot("it needs a memory cgroup of its own to run out of memory in")

        def body() -> None:
            join()
            for page in range(at, at + pages * PAGE, PAGE):
                ctypes.memset(page, 0, 1)

        for _ in range(8):  # what was freed last is often taken again before it is searched for
            program.reap(program.fork(body), -signal.SIGKILL)
    program.intact("the parent's own pages", at, pages)

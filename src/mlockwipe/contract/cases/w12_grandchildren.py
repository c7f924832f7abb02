# SPDX-License-Identifier: MIT
"""W12: grandchildren, daemons, and parents that go first."""

import os

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.pattern import is_painted, paint
from mlockwipe.contract.program import (
    PAGE,
    PAGES,
    PRIVATE,
    READ_WRITE,
    Barrier,
    Program,
    Signal,
    refused,
)
from mlockwipe.linux import mm
from mlockwipe.linux.prctl import become_subreaper

MANY = 4096  # pages: to unmap them takes long enough for another processor to do the same meanwhile

_SHARED = "the copy in the pipe would be another page than the one that both still map"


@case(
    "W12",
    "grandchild",
    WIPED,
    "a grandchild exits; its parent, which never wrote the pages, and theirs keep them",
)
def grandchild(program: Program) -> None:
    at = program.secret()

    def write() -> None:
        paint(at, PAGES)
        program.show(at)

    def child() -> None:
        program.reap(program.fork(write))
        program.intact("the child's pages", at)

    program.reap(program.fork(child))
    program.intact("the pages of the first", at)


@case("W12", "grandchild-of-gone-child", WIPED, "a grandchild exits after the child in between")
def grandchild_of_gone_child(program: Program) -> None:
    at = program.secret()
    gone = Signal()

    def write() -> None:
        gone.wait()
        paint(at, PAGES)
        program.show(at)

    born = Signal()
    become_subreaper()
    os.waitpid(program.fork(lambda: born.give(program.fork(write))), 0)
    gone.give()
    program.reap(born.wait())
    program.intact("the pages of the first", at)


@case("W12", "many-children", WIPED, "eight children at the same time, each with pages of its own")
def many_children(program: Program) -> None:
    at = program.secret()

    def write() -> None:
        paint(at, 2)
        program.show(at, 2)

    for pid in [program.fork(write) for _ in range(8)]:
        os.waitpid(pid, 0)
    program.look()
    program.intact("the parent's own pages", at)


@case(
    "W12",
    "parent-first",
    WIPED,
    "the parent exits while the child lives: the parent's pages, and not the child's",
)
def parent_first(program: Program) -> None:
    born, written, gone = Signal(), Signal(), Signal()

    def parent() -> None:
        at = program.secret()

        def child() -> None:
            paint(at, PAGES)
            written.give()
            gone.wait()
            program.intact("the child's pages", at)

        born.give(program.fork(child))
        written.wait()
        paint(at, PAGES)
        program.show(at)

    become_subreaper()
    program.reap(program.fork(parent))
    gone.give()
    program.reap(born.wait())


@case(
    "W12",
    "child-last",
    WIPED,
    "the child exits when its parent is gone, with pages that it writes only then",
)
def child_last(program: Program) -> None:
    born, gone = Signal(), Signal()

    def parent() -> None:
        at = program.secret()

        def child() -> None:
            gone.wait()
            program.intact("the pages after the parent's end", at)
            paint(at, PAGES)
            program.show(at)

        born.give(program.fork(child))

    become_subreaper()
    os.waitpid(program.fork(parent), 0)
    gone.give()
    program.reap(born.wait())


@case("W12", "daemon", WIPED, "the program locks, forks twice and returns, as gpg-agent does", outlives=True)
def daemon(program: Program) -> None:
    at = program.secret()

    def serve() -> None:
        paint(at, PAGES)
        program.show(at)

    def session() -> None:
        os.setsid()
        program.fork(serve)

    os.waitpid(program.fork(session), 0)


@case("W12", "daemon-reaped", WIPED, "a daemon exits by itself and its subreaper waits for it")
def daemon_reaped(program: Program) -> None:
    born = Signal()

    def start() -> None:
        at = program.secret()

        def serve() -> None:
            os.setsid()
            paint(at, PAGES)
            program.show(at)

        born.give(program.fork(serve))

    become_subreaper()
    os.waitpid(program.fork(start), 0)
    program.reap(born.wait())


@case(
    "W12",
    "shared-child-last",
    WIPED,
    "pages that neither wrote since the fork: the child goes last",
    needs_ram_scan=_SHARED,
)
def shared_child_last(program: Program) -> None:
    born, gone = Signal(), Signal()

    def parent() -> None:
        at = program.secret()

        def child() -> None:
            gone.wait()
            program.unharmed("the pages after the parent's end", is_painted(at, PAGES))

        born.give(program.fork(child))

    become_subreaper()
    os.waitpid(program.fork(parent), 0)
    gone.give()
    os.waitpid(born.wait(), 0)


@case(
    "W12",
    "shared-parent-last",
    WIPED,
    "pages that neither wrote since the fork: the parent goes last",
    needs_ram_scan=_SHARED,
)
def shared_parent_last(program: Program) -> None:
    def parent() -> None:
        at = program.secret()
        os.waitpid(program.fork(lambda: program.intact("the child's pages", at)), 0)
        program.intact("the pages after the child's end", at)

    os.waitpid(program.fork(parent), 0)


@case(
    "W12",
    "shared-both-killed",
    WIPED,
    "pages that neither wrote since the fork: both are killed at once",
    needs_ram_scan=_SHARED,
)
def shared_both_killed(program: Program) -> None:
    import signal

    from mlockwipe.contract.program import sleep_for_ever

    ready = Signal()

    def child() -> None:
        ready.give(os.getpid())
        sleep_for_ever()

    def parent() -> None:
        os.setpgid(0, 0)
        program.secret()
        program.fork(child)
        sleep_for_ever()

    become_subreaper()
    pid = program.fork(parent)
    grandchild = ready.wait()
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.waitpid(grandchild, 0)


@case(
    "W12",
    "shared-both-exit",
    WIPED,
    "16 MiB that neither wrote since the fork: both exit at the same instant, each on a processor of its own",
    needs_ram_scan=_SHARED,
)
def shared_both_exit(program: Program) -> None:
    """Who decides what to wipe before the kernel has unmapped it sees each page still mapped by the other."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        program.cannot("it needs two processors")
    size = MANY * PAGE
    born, barrier = Signal(), Barrier()

    def child() -> None:
        os.sched_setaffinity(0, {processors[1]})
        barrier.wait(1)

    def parent() -> None:
        at = mm.mmap(0, size, READ_WRITE, PRIVATE)
        if error := refused(mm.mlock, at, size):
            born.give()
            program.cannot(f"to lock 16 MiB is refused with {error}: it needs `ulimit -l` above that")
        paint(at, MANY)
        born.give(program.fork(child))
        os.sched_setaffinity(0, {processors[0]})
        barrier.wait(0)

    become_subreaper()
    os.waitpid(program.fork(parent), 0)
    if orphan := born.wait():
        os.waitpid(orphan, 0)

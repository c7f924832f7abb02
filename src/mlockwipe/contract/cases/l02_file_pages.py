# SPDX-License-Identifier: MIT
"""L2: pages of files. A file that the program may only read must never change, nor one that it shares."""

import ctypes
import os
import signal
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.files import read
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGES, PRIVATE, READ_WRITE, SIZE, Program, refused
from mlockwipe.contract.steps import lock_all
from mlockwipe.linux import mm, mman
from mlockwipe.linux.libc import libc


def painted_file(flags: int = os.O_RDWR) -> int:
    """A file of PAGES painted pages, opened with `flags`."""
    fd = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, SIZE)
    at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd)
    paint(at, PAGES)
    mm.munmap(at, SIZE)
    os.close(fd)
    return os.open("file", flags)


def is_unharmed(program: Program, fd: int) -> None:
    at = mm.mmap(0, SIZE, mman.PROT_READ, mman.MAP_SHARED, fd)
    program.intact("the file", at)


def _released(
    program: Program,
    flags: int,
    sharing: int,
    prot: int,
    release: Callable[[int], object] = lambda at: None,
    status: int = 0,
) -> None:
    """A child maps and locks the file's pages, shows them and releases them."""
    fd = painted_file(flags)

    def body() -> None:
        at = mm.mmap(0, SIZE, prot, sharing, fd)
        mm.mlock(at, SIZE)
        program.show(at)
        release(at)

    program.reap(program.fork(body), status)
    is_unharmed(program, fd)


def _unmap(at: int) -> None:
    mm.munmap(at, SIZE)


def _map_over(at: int) -> None:
    mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED)


def _kill(at: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@case("L2", "shared-exit", KEPT, "MAP_SHARED, when the program ends")
def shared_exit(program: Program) -> None:
    _released(program, os.O_RDWR, mman.MAP_SHARED, READ_WRITE)


@case("L2", "shared-unmap", KEPT, "MAP_SHARED, unmapped")
def shared_unmap(program: Program) -> None:
    _released(program, os.O_RDWR, mman.MAP_SHARED, READ_WRITE, _unmap)


@case("L2", "shared-mapped-over", KEPT, "MAP_SHARED, mapped over")
def shared_mapped_over(program: Program) -> None:
    _released(program, os.O_RDWR, mman.MAP_SHARED, READ_WRITE, _map_over)


@case("L2", "shared-dirty", KEPT, "MAP_SHARED, written while locked: what was written reaches the file")
def shared_dirty(program: Program) -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, SIZE)

    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_SHARED, fd)
        mm.mlock(at, SIZE)
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))
    is_unharmed(program, fd)


@case("L2", "shared-read-only", KEPT, "MAP_SHARED of a file that the program may only read")
def shared_read_only(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_SHARED, mman.PROT_READ)


@case("L2", "private-unchanged-exit", KEPT, "MAP_PRIVATE, nothing changed, when the program ends")
def private_unchanged_exit(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_PRIVATE, mman.PROT_READ)


@case("L2", "private-unchanged-unmap", KEPT, "MAP_PRIVATE, nothing changed, unmapped")
def private_unchanged_unmap(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_PRIVATE, mman.PROT_READ, _unmap)


@case(
    "L2",
    "private-executable",
    KEPT,
    "MAP_PRIVATE, readable and executable, as a program's own code is mapped",
)
def private_executable(program: Program) -> None:
    _released(program, os.O_RDONLY, mman.MAP_PRIVATE, mman.PROT_READ | mman.PROT_EXEC)


@case("L2", "private-writable-unchanged", KEPT, "MAP_PRIVATE, writable, locked on fault and only read")
def private_writable_unchanged(program: Program) -> None:
    fd = painted_file(os.O_RDONLY)

    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_PRIVATE, fd)
        mm.mlock2(at, SIZE, mman.MLOCK_ONFAULT)
        program.show(at)

    program.reap(program.fork(body))
    is_unharmed(program, fd)


@case("L2", "private-other-pages", KEPT, "MAP_PRIVATE, half changed: the other half, which is the file's")
def private_other_pages(program: Program) -> None:
    fd = painted_file(os.O_RDONLY)
    half = SIZE // 2

    def body() -> None:
        at = mm.mmap(0, SIZE, READ_WRITE, mman.MAP_PRIVATE, fd)
        mm.mlock2(at, SIZE, mman.MLOCK_ONFAULT)
        paint(at, PAGES // 2)
        program.show(at + half, PAGES // 2)

    program.reap(program.fork(body))
    is_unharmed(program, fd)


@case("L2", "child-of-locker", KEPT, "a child exits with a file mapping that its parent locked")
def child_of_locker(program: Program) -> None:
    fd = painted_file(os.O_RDONLY)
    at = mm.mmap(0, SIZE, mman.PROT_READ, mman.MAP_PRIVATE, fd)
    mm.mlock(at, SIZE)
    program.reap(program.fork(lambda: program.show(at)))
    is_unharmed(program, fd)


@case("L2", "own-code", KEPT, "mlockall: the program's own code and libraries, which others run too")
def own_code(program: Program) -> None:
    fd = painted_file(os.O_RDONLY)

    def body() -> None:
        at = mm.mmap(0, SIZE, mman.PROT_READ | mman.PROT_EXEC, mman.MAP_PRIVATE, fd)
        lock_all(program, mman.MCL_CURRENT)
        program.show(at)

    program.reap(program.fork(body))
    is_unharmed(program, fd)


# A file that the user himself may not write. Zeroing its pages would be the kernel's or the carrier's doing.

_NOBODY = 65534


def _become_nobody(program: Program) -> None:
    """Give up all of root's rights. Another user has none over a file of mode 0444 as it is."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        except OSError as error:
            program.cannot(f"root can't become user {_NOBODY} here ({error.strerror})")
    program.check("opening the file for writing", refused(os.open, "file", os.O_RDWR), "EACCES")


def _released_by_nobody(program: Program, sharing: int, release: Callable[[int], object] = lambda at: None) -> None:
    """A child that may not write the file maps, locks and releases it."""
    from mlockwipe.contract.file_content import in_page_cache, on_disk

    fd = painted_file(os.O_RDONLY)
    os.fchmod(fd, 0o444)
    os.chmod(".", 0o755)  # so that it is the file's mode that keeps him out
    os.fsync(fd)
    before = in_page_cache("file"), on_disk("file")

    def body() -> None:
        at = mm.mmap(0, SIZE, mman.PROT_READ, sharing, fd)
        program.show(at)
        _become_nobody(program)
        mm.mlock(at, SIZE)
        release(at)

    program.reap(program.fork(body))
    program.unharmed("the file in the page cache", in_page_cache("file") == before[0])
    program.unharmed("the file on disk", on_disk("file") == before[1])


@case("L2", "not-writable-private-exit", KEPT, "MAP_PRIVATE of a file that the user may not write, at exit")
def not_writable_private_exit(program: Program) -> None:
    _released_by_nobody(program, mman.MAP_PRIVATE)


@case("L2", "not-writable-private-unmap", KEPT, "MAP_PRIVATE of a file that the user may not write, unmapped")
def not_writable_private_unmap(program: Program) -> None:
    _released_by_nobody(program, mman.MAP_PRIVATE, _unmap)


@case("L2", "not-writable-shared-exit", KEPT, "MAP_SHARED of a file that the user may not write, at exit")
def not_writable_shared_exit(program: Program) -> None:
    _released_by_nobody(program, mman.MAP_SHARED)


@case("L2", "not-writable-shared-unmap", KEPT, "MAP_SHARED of a file that the user may not write, unmapped")
def not_writable_shared_unmap(program: Program) -> None:
    _released_by_nobody(program, mman.MAP_SHARED, _unmap)


# The C library, which mlockall locks and every other process runs


def library_text() -> tuple[str, int, int]:
    """The C library's file, and where this process has its code: start and end."""
    inside = ctypes.cast(libc.getpid, ctypes.c_void_p).value or 0
    for line in read("/proc/self/maps").splitlines():
        place, _, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in place.split("-"))
        if start <= inside < end:
            return path[0], start, end
    raise RuntimeError("the C library is not mapped")


def _locker_ends(program: Program, end: Callable[[], object], status: int = 0) -> None:
    """A child locks all it has and will have, and ends; its parent, which runs the same library, looks."""
    from mlockwipe.contract.file_content import in_memory, in_page_cache, on_disk

    path, start, after = library_text()
    views: dict[str, Callable[[], str]] = {
        "the library as it is mapped": lambda: in_memory(start, after - start),
        "the library's file in the page cache": lambda: in_page_cache(path),
        "the library's file on disk": lambda: on_disk(path),
    }
    before = {what: look() for what, look in views.items()}

    def body() -> None:
        lock_all(program, mman.MCL_CURRENT | mman.MCL_FUTURE)
        program.secret()
        end()

    program.reap(program.fork(body), status)
    for what, look in views.items():
        program.unharmed(what, look() == before[what])


@case("L2", "library-exit", KEPT, "mlockall, now and in future: the C library when the program ends", shows=False)
def library_exit(program: Program) -> None:
    _locker_ends(program, lambda: None)


@case("L2", "library-sigkill", KEPT, "mlockall, now and in future: the C library at SIGKILL", shows=False)
def library_sigkill(program: Program) -> None:
    _locker_ends(program, lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL)

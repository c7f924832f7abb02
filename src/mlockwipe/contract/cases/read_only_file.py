# SPDX-License-Identifier: MIT
"""L2: a file that the user himself may not write. Zeroing its pages would be the kernel's or the carrier's doing."""

import os
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.cases.file import painted_file
from mlockwipe.contract.file_content import in_page_cache, on_disk
from mlockwipe.contract.program import SIZE, Program, refused
from mlockwipe.linux import mm, mman

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


def _released(program: Program, sharing: int, release: Callable[[int], object] = lambda at: None) -> None:
    """A child that may not write the file maps, locks and releases it."""
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


def _unmap(at: int) -> None:
    mm.munmap(at, SIZE)


@case("L2", "not-writable-private-exit", KEPT, "MAP_PRIVATE of a file that the user may not write, at exit")
def not_writable_private_exit(program: Program) -> None:
    _released(program, mman.MAP_PRIVATE)


@case("L2", "not-writable-private-unmap", KEPT, "MAP_PRIVATE of a file that the user may not write, unmapped")
def not_writable_private_unmap(program: Program) -> None:
    _released(program, mman.MAP_PRIVATE, _unmap)


@case("L2", "not-writable-shared-exit", KEPT, "MAP_SHARED of a file that the user may not write, at exit")
def not_writable_shared_exit(program: Program) -> None:
    _released(program, mman.MAP_SHARED)


@case("L2", "not-writable-shared-unmap", KEPT, "MAP_SHARED of a file that the user may not write, unmapped")
def not_writable_shared_unmap(program: Program) -> None:
    _released(program, mman.MAP_SHARED, _unmap)

# SPDX-License-Identifier: MIT
"""L2: the C library, which mlockall locks and every other process runs."""

import ctypes
import os
import signal
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.cases.lockall import lock_all
from mlockwipe.contract.file_content import in_memory, in_page_cache, on_disk
from mlockwipe.contract.files import read
from mlockwipe.contract.program import Program
from mlockwipe.linux import mman
from mlockwipe.linux.libc import libc


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

# SPDX-License-Identifier: MIT
"""Beginning to trace a process that runs: every task of it, while they make new ones."""

import contextlib
import os

from mlockwipe.linux import kcmp, procfs, ptrace
from mlockwipe.supervisor.task import PROGRAM_OPTIONS


def seize_sharing(tgid: int, parent: int) -> list[tuple[int, int]]:
    """Trace a process, and its parent if it shares its memory (after vfork): pairs of tid and tgid.

    PermissionError when the kernel refuses: another tracer, an undumpable process, Yama.
    """
    members = [(tid, tgid) for tid in seize(tgid)]
    with contextlib.suppress(OSError):
        if parent and kcmp.same_address_space(tgid, parent):
            members += [(tid, parent) for tid in seize(parent)]
    return members


def seize(tgid: int) -> list[int]:
    """Trace every thread of a process and return their tids.

    No thread is stopped: an interrupted epoll_wait(2) would return EINTR. A thread that is made meanwhile is
    traced from birth if its maker was traced, and is in the listing of the next pass if not: a pass that finds
    nothing new has found all.
    """
    seized: set[int] = set()
    passed: set[int] = set()
    while new := [tid for tid in procfs.tasks(tgid) if tid not in seized and tid not in passed]:
        for tid in new:
            if _seize(tid):
                seized.add(tid)
            else:
                passed.add(tid)
    return sorted(seized)


def _seize(tid: int) -> bool:
    try:
        ptrace.seize(tid, PROGRAM_OPTIONS)
    except ProcessLookupError:
        return False
    except PermissionError:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if procfs.stat_fields(tid)[0] in "ZX":
                return False  # a thread, often the first, that has ended before the others
            if int(procfs.status_field(tid, "TracerPid")) == os.getpid():
                return False  # made by a thread of ours, and traced from birth
            raise
        return False
    return True


def children(pid: int) -> list[int]:
    """The children of a single-threaded process."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]

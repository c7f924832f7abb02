# SPDX-License-Identifier: MIT
"""Beginning to trace a process that runs: every task of it, while they make new ones."""

import os
import sys
from collections.abc import Callable

from mlockwipe.linux import procfs, ptrace
from mlockwipe.tracing.kin import sharing

_ATTEMPTS = 3


class Seized:
    """The tasks that are traced now, each with its process; and whether the kernel has refused one.

    `processes`: all others that share the memory, some of which may have been traced before.
    """

    def __init__(self) -> None:
        self.members: list[tuple[int, int]] = []
        self.processes: list[int] = []
        self.refused = False


def seize_sharing(
    tid: int, tgid: int, known: Callable[[int], bool], options: int, *, siblings: int = sys.maxsize
) -> Seized:
    """Trace a process, of which `tid` is a thread, and all that share its memory.

    Refused are tasks of another tracer, of an undumpable process, and by Yama. `known`: who is traced already, and
    shares his memory with nobody else. `siblings`: of so many at most.
    """
    seized = Seized()
    _seize_threads(tgid, seized, options)
    for process in sharing(tid, tgid, known, siblings):
        _seize_threads(process, seized, options)
        seized.processes.append(process)
    return seized


def _seize_threads(tgid: int, seized: Seized, options: int) -> None:
    """Trace every thread of a process.

    No thread is stopped: an interrupted epoll_wait(2) would return EINTR. A thread that is made meanwhile is
    traced from birth if its maker was traced, and is in the listing of the next pass if not: a pass that finds
    nothing new has found all.
    """
    seen: set[int] = set()
    while new := [tid for tid in procfs.tasks(tgid) if tid not in seen]:
        seen.update(new)
        for tid in new:
            if tid != tgid and procfs.works_for_kernel(tid):
                continue  # it can be stopped, but executes no call for us, and ends with the process
            _seize(tid, tgid, seized, options)


def _seize(tid: int, tgid: int, seized: Seized, options: int) -> None:
    for _ in range(_ATTEMPTS):
        try:
            ptrace.seize(tid, options)
        except ProcessLookupError:
            return  # it has ended
        except PermissionError:
            if not _seems_refused(tid):
                return
        else:
            seized.members.append((tid, tgid))
            return
    seized.refused = True


def _seems_refused(tid: int) -> bool:
    """Whether there is a task that the kernel does not let us trace. It may be another one by now than was refused:
    the first thread has ended, and one that executes another program has got its tid."""
    try:
        status = procfs.Status(tid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie can't be traced: a thread, often the first, that has ended before the others. And one that was made
    # by a thread of ours is traced from birth.
    return status["State"][0] not in "ZX" and int(status["TracerPid"]) != os.getpid()

# SPDX-License-Identifier: MIT
"""What the guardian does first when its supervisor was killed: wipe the memory that the keepers hold."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.arch import TASK_SIZE
from mlockwipe.linux.page_batches import drain_page_batches
from mlockwipe.linux.wait import await_stop, bound_waits
from mlockwipe.memory import in_flight, wipe
from mlockwipe.memory.inject import Injection, unfinished
from mlockwipe.memory.instruction import system_call_instruction
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.keeper import NAME, end_task
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range

_PATIENCE = 10.0  # seconds for killed tasks to die
_SIGKILL = 1 << 8  # in the masks of status
_BLOCKED = ((1 << 64) - 1) & ~(1 << 8 | 1 << 18)  # all signals but SIGKILL and SIGSTOP
_PF_EXITING = 4  # in the flags of stat
_EVERYTHING: list[Range] = [(0, TASK_SIZE)]


Tasks = Callable[[], Iterable[int]]  # the processes that may be of the dead supervisor


def descendants() -> list[int]:
    """All of ours."""
    return _descendants(os.getpid())


def filtered() -> list[int]:
    """All processes under a seccomp filter that nobody traces."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = procfs.Status(int(name))
                if status["Seccomp"] == "2" and status["TracerPid"] == "0":
                    found.append(int(name))
    return found


def recover(journal: Journal, files: dict[int, list[int]], tasks: Tasks = descendants) -> int:
    """Wipe what the keepers among `tasks` hold, and end them: the number of pages.

    `files` has mem, pagemap and maps of the keepers that the supervisor had told of. One that is not in the journal
    was being made when the supervisor died; of its program everything anonymous is wiped.
    """
    bound_waits()
    deadline = time.monotonic() + _PATIENCE
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:  # twice: between two signs of its death a task shows none
        quiet = 0 if _somebody_is_dying(tasks) else quiet + 1
        time.sleep(0.001)
    ranges = journal.entries()
    pages = 0
    registered = ranges.keys() | files.keys()
    for keeper in [pid for pid in tasks() if _is_keeper(pid, registered)]:
        # One after the other, each gone before the next: a page that two of them share is wiped with the last.
        drain_page_batches()
        with contextlib.suppress(OSError):
            ptrace.seize(keeper, 0)  # some kernels let only a tracer write to protected memory
        try:
            opened = Files.of(*files[keeper]) if keeper in files else Files(keeper)
        except OSError:
            pass  # killed meanwhile; or undumpable, and nothing was locked yet
        else:
            # Whatever is wrong with one, the others are wiped, and none is left.
            with contextlib.suppress(Exception):
                in_flight.end_in_flight(opened, partial(_call, keeper))
            with contextlib.suppress(Exception):
                runs = wipe.sensitive_pages(opened, ranges.get(keeper, _EVERYTHING))
                pages += wipe.clear_by_writing(opened, [run for _, run in runs])
            opened.close()
        end_task(keeper)
        unfinished.pop(keeper, None)
    return pages


def _call(keeper: int, name: str, argument: int) -> int:
    """Have a keeper execute a system call. OSError when we do not trace it, TaskGone when it is dead.

    It dies with us meanwhile: let go of between the call and its next stop, it would run on into the program's code.
    """
    ptrace.interrupt(keeper)
    await_stop(keeper)
    ptrace.set_options(keeper, ptrace.O_EXITKILL)
    with Injection(keeper, *system_call_instruction(keeper)) as task:
        result = task.call(name, argument)
    ptrace.set_options(keeper, 0)
    ptrace.cont(keeper)
    return result


def _somebody_is_dying(tasks: Tasks) -> bool:
    """Whether one of them has been killed and is not dead yet, or a keeper is still on its way back to sleep."""
    for pid in tasks():
        try:
            status = procfs.Status(pid)
            flags = int(procfs.stat_fields(pid)[6])
        except (FileNotFoundError, ProcessLookupError):
            continue
        state = status["State"][0]
        if state in "ZX":
            continue
        if flags & _PF_EXITING or (int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)) & _SIGKILL:
            return True
        if state not in "ST" and _is_keeper(pid):
            return True  # for up to 12 ms after its tracer's death (Linux 6.18); T: somebody has sent it SIGSTOP
    return False


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for tid in procfs.tasks(pid):
            for child in procfs.children(pid, tid):
                found += [child, *_descendants(child)]
    return found


def _is_keeper(pid: int, registered: Collection[int] = ()) -> bool:
    """Whether a task is a keeper. A program may give itself the name, and is not to be killed for it.

    One that is not registered was being made; what `mlockwipe.memory.keeper` has made of it before it can outlive a
    supervisor no program is by accident.
    """
    try:
        status = procfs.Status(pid)
        if status["Name"] != NAME.decode() or status["State"][0] in "ZX":
            return False
        return pid in registered or (
            int(status["SigBlk"], 16) == _BLOCKED
            and int(procfs.stat_fields(pid)[3]) == pid  # its session
            and _descriptors(pid) <= {"/dev/zero"}
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def _descriptors(pid: int) -> set[str]:
    with contextlib.suppress(PermissionError):  # of an undumpable program: it can't be known
        return set(procfs.descriptors(pid).values())
    return set()

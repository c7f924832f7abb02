# SPDX-License-Identifier: MIT
"""Processes that share their memory, found among the kin of one that does.

Whoever shares memory with a process was made, by vfork or clone(CLONE_VM), by one that shared it: he is its child, or
its sibling (CLONE_PARENT), or has been left to an ancestor when his maker died. The kernel does not tell how many use
an address space, but it compares two of them (kcmp), in 3 us: nothing beside what the first lock takes otherwise.
"""

import os
import sys
from collections.abc import Callable, Iterator

from mlockwipe.linux import kcmp, procfs
from mlockwipe.suppress import suppress

_PASSES = 16  # over the children of one that makes more and more


def sharing(tid: int, process: int, known: Callable[[int], bool], siblings: int = sys.maxsize) -> Iterator[int]:
    """The processes among the kin of `process` that share memory with `tid`, a task that uses the same memory.

    Children come before parents, as the dead leave their children to those above. Whoever traces what it is given
    before it asks for more misses nobody: those that are made then are traced from birth. `known`: who need not be
    looked at. `siblings`: more than so many children of one that does not share the memory are not looked at.
    """
    seen = {process}
    yield from _children_sharing(tid, process, seen, known)
    while (process := _parent(process)) not in (0, os.getpid()):
        if shares := process not in seen and not known(process) and _shares(tid, process):
            seen.add(process)
            yield process
        yield from _children_sharing(tid, process, seen, known, sys.maxsize if shares else siblings)
    yield from _children_sharing(tid, os.getpid(), seen, known, siblings)  # `run` is the reaper of all that it traces


def _children_sharing(
    tid: int, process: int, seen: set[int], known: Callable[[int], bool], most: int = sys.maxsize
) -> Iterator[int]:
    for _ in range(_PASSES):
        new = [child for child in _children(process) if child not in seen]
        if len(new) > most:
            return
        seen.update(new)
        found = [child for child in new if not known(child) and _shares(tid, child)]
        for child in found:
            yield child
            yield from _children_sharing(tid, child, seen, known)
        if not found:  # who is found may have made a sibling (CLONE_PARENT) before it was traced
            return


def _shares(tid: int, process: int) -> bool:
    try:
        if kcmp.same_address_space(tid, process):
            return True
        # The first thread of a process has no memory any more when it has ended before the others.
        if procfs.has_threads(process) and procfs.stat_fields(process)[0] == "Z":
            return any(kcmp.same_address_space(tid, other) for other in procfs.tasks(process))
    except OSError:  # it has ended, or the kernel does not tell
        pass
    return False


def _children(process: int) -> list[int]:
    """Those that any of its threads has made or inherited."""
    found = []
    for tid in procfs.tasks(process):
        with suppress(OSError):  # it has ended
            found += procfs.children(process, tid)
    return found


def _parent(process: int) -> int:
    try:
        return int(procfs.status_field(process, "PPid"))
    except (FileNotFoundError, ProcessLookupError):
        return 0

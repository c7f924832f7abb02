# SPDX-License-Identifier: MIT
"""What /proc says of tasks, and waiting for it to say something else."""

import array
import os

from mlockwipe.contract.files import names, read
from mlockwipe.linux.mm import PAGE_SIZE

_SWAPPED = 1 << 62  # Documentation/admin-guide/mm/pagemap.rst


def state(pid: int, tid: int | None = None) -> str:
    """The state of a task, as ps shows it: R, S, T, Z, ..."""
    return read(f"/proc/{pid}/task/{tid or pid}/stat").rpartition(")")[2].split()[0]


def wait_until(wanted: str, pid: int, tid: int | None = None) -> None:
    """Return when a task is in a state: 'S' when it sleeps in the kernel, 'Z' when it has left."""
    while state(pid, tid) != wanted:
        os.sched_yield()


def children(pid: int) -> list[int]:
    """The children of a process's first thread."""
    return [int(child) for child in read(f"/proc/{pid}/task/{pid}/children").split()]


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(names(f"/proc/{pid}/task"))


def swapped(pid: int, address: int, pages: int) -> int:
    """How many pages of a range a process has in swap."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        entries = array.array("Q", os.pread(pagemap.fileno(), pages * 8, address // PAGE_SIZE * 8))
    return sum(bool(entry & _SWAPPED) for entry in entries)

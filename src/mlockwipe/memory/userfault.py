# SPDX-License-Identifier: MIT
"""Pages that a userfaultfd protects from being written: a write would wait for the program to allow it.

The program waits for us, or is dead. Writing through /proc/PID/mem fails with EIO, and a worker that writes would
sleep for ever.
"""

import fcntl
import os
from collections.abc import Iterable

from mlockwipe.linux import procfs, userfaultfd
from mlockwipe.linux.arch import TASK_SIZE
from mlockwipe.linux.mman import MREMAP_FIXED, MREMAP_MAYMOVE
from mlockwipe.linux.pidfd import get_descriptor
from mlockwipe.memory.keeper import Keeper, checked_result
from mlockwipe.memory.ranges import Range
from mlockwipe.memory.wipe import Run
from mlockwipe.suppress import suppress

_LOWEST = 1 << 20  # above vm.mmap_min_addr


class Lifted:
    """The protection that was taken from some pages of a living program, by a descriptor of its own."""

    def __init__(self, keeper: Keeper, runs: Iterable[Run], tids: Iterable[int]) -> None:
        """OSError when none of `tids`, the tasks that use the memory, has such a descriptor any more."""
        self.ranges = [
            part
            for vma, (start, end) in runs
            if vma.protected
            for part in procfs.resident(keeper.files.pagemap, start, end)[1]
        ]
        self._fd = self._lift(tids)

    def _lift(self, tids: Iterable[int]) -> int:
        for tid in tids:
            for fd in _userfaultfds(tid):
                with suppress(OSError):
                    own = get_descriptor(tid, fd)
                    try:
                        for start, end in self.ranges:
                            _set_protection(own, start, end, protect=False)
                    except OSError:
                        os.close(own)
                        continue
                    return own
        raise OSError("a userfaultfd that no task of it has open protects them")

    def put_back(self) -> None:
        with suppress(OSError):  # it may be unmapped
            for start, end in self.ranges:
                _set_protection(self._fd, start, end, protect=True)

    def close(self) -> None:
        os.close(self._fd)


def _set_protection(fd: int, start: int, end: int, *, protect: bool) -> None:
    fcntl.ioctl(fd, userfaultfd.WRITE_PROTECT, userfaultfd.write_protection(start, end - start, protect=protect))


def _userfaultfds(tid: int) -> list[int]:
    with suppress(OSError):
        return [fd for fd, link in procfs.descriptors(tid).items() if link == "anon_inode:[userfaultfd]"]
    return []


def moved_away(keeper: Keeper, runs: Iterable[Run]) -> list[Run]:
    """The runs of a dead program, where they can be written: mremap(2) leaves the protection behind.

    That is so where the userfaultfd is not to hear of it (mremap_userfaultfd_prep in fs/userfaultfd.c, Linux 6.18).
    OSError when the kernel refuses it; TaskGone without worker.
    """
    return [(vma, _moved(keeper, run) if vma.protected else run) for vma, run in runs]


def _moved(keeper: Keeper, run: Range) -> Range:
    start, end = run
    place = _free_place(keeper, end - start)
    moved = keeper.worker.call("mremap", start, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, place)
    checked_result(moved, "mremap of what a userfaultfd protects")
    return moved, moved + end - start


def _free_place(keeper: Keeper, size: int) -> int:
    """Where nothing is mapped, and nobody is left who could map anything. OSError without one."""
    end = _LOWEST
    for vma in procfs.vmas(keeper.files.maps, 0, TASK_SIZE):
        if vma.start - end >= size:
            return end
        end = vma.end
    raise OSError("there is no room to move what a userfaultfd protects")

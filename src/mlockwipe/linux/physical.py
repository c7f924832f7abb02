# SPDX-License-Identifier: MIT
"""Physical pages: which ones a process maps, and what a page is. Needs CAP_SYS_ADMIN.

Documentation/admin-guide/mm/pagemap.rst; include/uapi/linux/kernel-page-flags.h.
"""

import array
import os
from collections.abc import Collection, Iterator

from mlockwipe.linux.mm import PAGE_SIZE

_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1
_BUDDY, _SLAB, _LRU, _ANON, _SWAPCACHE, _PGTABLE = (1 << bit for bit in (10, 7, 5, 12, 13, 26))


def mapped(pid: int, wanted: Collection[int]) -> dict[int, int]:
    """Which of the `wanted` page frame numbers a process maps, and at which address: {frame: address}.

    A process that is gone maps nothing. Raises PermissionError.
    """
    found: dict[int, int] = {}
    wanted = set(wanted)
    try:
        with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
            for start, end in _ranges(pid):
                size, at = (end - start) // PAGE_SIZE * 8, start // PAGE_SIZE * 8
                for page, entry in enumerate(array.array("Q", os.pread(pagemap.fileno(), size, at))):
                    if entry & _PRESENT and entry & _FRAME in wanted:
                        found[entry & _FRAME] = start + page * PAGE_SIZE
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _ranges(pid: int) -> Iterator[tuple[int, int]]:
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            start, _, end = line.split(maxsplit=1)[0].partition("-")
            if int(end, 16) < 1 << 63:  # not the vsyscall page
                yield int(start, 16), int(end, 16)


class Frames:
    """The kernel's lists of all page frames. Raises OSError where they can't be read."""

    def __init__(self) -> None:
        self._flags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        self._counts = os.open("/proc/kpagecount", os.O_RDONLY | os.O_CLOEXEC)

    def mappings(self, frame: int) -> int:
        """How often a frame is mapped into processes."""
        return self._entry(self._counts, frame)

    def kind(self, frame: int) -> str:
        """What a frame is used for now: 'anonymous', 'page cache', 'swap cache', 'page table', 'slab', 'free' or
        'kernel'. A free page that a CPU keeps in its own list looks like one of the kernel's; KSM's are anonymous,
        for Linux 6.12 says of every anonymous page that it is KSM's (fs/proc/page.c).
        """
        flags = self._entry(self._flags, frame)
        for bit, kind in (
            (_BUDDY, "free"),
            (_SLAB, "slab"),
            (_PGTABLE, "page table"),
            (_SWAPCACHE, "swap cache"),
            (_ANON, "anonymous"),
            (_LRU, "page cache"),
        ):
            if flags & bit:
                return kind
        return "kernel"

    @staticmethod
    def _entry(fd: int, frame: int) -> int:
        return int.from_bytes(os.pread(fd, 8, frame * 8), "little")

# SPDX-License-Identifier: MIT
"""The files in /proc that show an address space, opened once, through a task that uses it.

A process that makes itself undumpable later refuses new opens; descriptors from before keep working, mem, pagemap and
maps even when the program is dead.
"""

import os

from mlockwipe.linux import procfs

_SPARE_DESCRIPTORS = 8


class Files:
    """Descriptors of mem, pagemap, maps and smaps."""

    def __init__(self, pid: int) -> None:
        """PermissionError for an undumpable process; OSError also when too few descriptors are left."""
        self.memory = self.pagemap = self.maps = self.smaps = -1
        try:
            self.memory = procfs.open_file(pid, "mem", os.O_RDWR)
            self.pagemap = procfs.open_file(pid, "pagemap")
            self.maps = procfs.open_file(pid, "maps")
            self.smaps = procfs.open_file(pid, "smaps")
            _need_more_descriptors(self.memory)
        except OSError:
            self.close()
            raise

    @classmethod
    def of(cls, memory: int, pagemap: int, maps: int) -> "Files":
        """Descriptors that somebody else has opened; without smaps, which can't be read once the program is dead."""
        files = cls.__new__(cls)
        files.memory, files.pagemap, files.maps, files.smaps = memory, pagemap, maps, -1
        return files

    def close(self) -> None:
        for fd in (self.memory, self.pagemap, self.maps, self.smaps):
            if fd != -1:
                os.close(fd)
        self.memory = self.pagemap = self.maps = self.smaps = -1


def _need_more_descriptors(fd: int) -> None:
    """OSError when so few are left that the supervisor could not open what it reads for a moment."""
    more: list[int] = []
    try:
        while len(more) < _SPARE_DESCRIPTORS:
            more.append(os.dup(fd))
    finally:
        for one in more:
            os.close(one)

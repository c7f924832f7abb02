# SPDX-License-Identifier: MIT
"""Content that is kept while a call is under way of which nobody can say yet whether it releases its pages."""

import errno
import os
from collections.abc import Iterable, Sequence

from mlockwipe.linux import process_vm, procfs
from mlockwipe.linux.arch import TASK_SIZE
from mlockwipe.memory.journal import SaveArea
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.ranges import Range


class Saved:
    """The content of some ranges of an address space, in a save area. It is false when there is none."""

    def __init__(self, keeper: Keeper, area: SaveArea) -> None:
        self._keeper = keeper
        self._area = area
        self._rooms: list[tuple[int, memoryview]] = []

    def __bool__(self) -> bool:
        return bool(self._rooms)

    def save(self, ranges: Sequence[Range]) -> None:
        """All of `ranges`, or nothing where the area has not so much room. OSError: they can't be read."""
        try:
            for start, end in ranges:
                room = self._area.take(end - start)
                if room is None:
                    self.discard()
                    return
                self._rooms.append((start, room))
                self._read(start, room)
        except OSError:
            self.discard()
            raise

    def bring_back(self, low: int = 0, high: int = TASK_SIZE) -> None:
        """What was saved in [low, high), where the pages still are: a call may fail half-way through."""
        for address, room in self._rooms:
            first, last = max(address, low), min(address + len(room), high)
            if first < last:
                self._write(procfs.anonymous_pages(self._keeper.files.pagemap, first, last), address, room)

    def discard(self) -> None:
        """Clear it, and give the room back."""
        for _, room in self._rooms:
            self._area.give_back(room)
        self._rooms.clear()

    def _read(self, address: int, room: memoryview) -> None:
        """Where the program itself can't, through the kernel's page that its wiping goes through next, as a rule."""
        read = process_vm.read_into(self._keeper.pid, address, room)
        rest = len(room) - read
        if rest and os.preadv(self._keeper.files.memory, [room[read:]], address + read) < rest:
            raise OSError(errno.EIO, "it can't be saved")

    def _write(self, runs: Iterable[Range], address: int, room: memoryview) -> None:
        for start, end in runs:
            content = room[start - address : end - address]
            written = process_vm.write(self._keeper.pid, start, content)
            if written < len(content):
                os.pwrite(self._keeper.files.memory, content[written:], start + written)

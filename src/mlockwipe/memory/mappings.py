# SPDX-License-Identifier: MIT
"""What the kernel says of an address space's mappings, asked when a call's arguments do not tell."""

from collections.abc import Iterable, Iterator

from mlockwipe.linux import procfs
from mlockwipe.linux.arch import TASK_SIZE
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range

_LARGEST_STACK = 1 << 30


class KernelMappings:
    """Of an address space whose files are open. `stack_top`: where its stack began at exec, 0 if not known."""

    def __init__(self, files: Files, stack_top: int) -> None:
        self._files = files
        self._stack_top = stack_top

    def mapped(self, start: int, end: int) -> Iterator[Range]:
        """The parts of [start, end) where anything is mapped, one for each mapping."""
        for vma in procfs.vmas(self._files.maps, start, end):
            yield max(start, vma.start), min(end, vma.end)

    def locked(self, start: int = 0, end: int = TASK_SIZE) -> list[Range]:
        """The parts of [start, end) that the kernel holds to be locked."""
        return [
            (max(low, start), min(high, end))
            for low, high in locked_ranges(self._files.smaps)
            if low < end and start < high
        ]

    def private(self) -> list[Range]:
        """What mlockall(MCL_CURRENT) locks, the stack with the room that it may grow into."""
        found = []
        room, lowest = self._stack()
        below = 0
        for vma in procfs.vmas(self._files.maps, 0, TASK_SIZE):
            if not vma.shared:
                # Of a stack in several mappings, only the one where it began has the name.
                start = room if vma.start == lowest else below if vma.name == "[stack]" else vma.start
                found.append((start, vma.end))
            below = vma.end
        return found

    def may_grow_down(self, start: int) -> bool:
        return self._stack_top - _LARGEST_STACK < start < self._stack_top

    def room_below(self, start: int) -> int:
        """Where a range that begins at `start` may begin one day: the lowest mapping of the stack grows downwards."""
        if not self.may_grow_down(start):
            return start
        room, lowest = self._stack()
        return room if lowest == start else start

    def _stack(self) -> Range:
        """Where the stack may begin one day, and where it begins; 0 where its top is not known."""
        room = lowest = below = 0
        for vma in procfs.vmas(self._files.maps, 0, self._stack_top):
            if vma.start != below:
                room, lowest = below, vma.start
            below = vma.end
        return room, lowest

    def refuse_unmap(self, parts: Iterable[Range]) -> bool:
        """Whether the kernel will refuse to unmap `parts`: sealed mappings, or no room for the pieces."""
        mappings = list(procfs.flagged_vmas(self._files.smaps))
        limit = int(procfs.sysctl("vm/max_map_count"))
        return len(mappings) >= limit - 1 or any(
            "sl" in flags and vma.start < end and start < vma.end for vma, flags in mappings for start, end in parts
        )


class NoMappings:
    """Of an address space that nobody can look into."""

    def mapped(self, start: int, end: int) -> Iterable[Range]:
        return ()

    def locked(self, start: int = 0, end: int = TASK_SIZE) -> list[Range]:
        return []

    def private(self) -> list[Range]:
        return []

    def may_grow_down(self, start: int) -> bool:
        return False

    def room_below(self, start: int) -> int:
        return start


def locked_ranges(smaps_fd: int) -> list[Range]:
    """The mappings that the kernel holds to be locked (`lo` in VmFlags of smaps)."""
    return [(vma.start, vma.end) for vma, flags in procfs.flagged_vmas(smaps_fd) if "lo" in flags]

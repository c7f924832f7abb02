# SPDX-License-Identifier: MIT
"""Which call locked what, in one address space."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mlockwipe.audit.stacks import Stack
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.ranges import Range


@dataclass(frozen=True)
class Lock:
    """A call that locked memory. `time` in seconds since the epoch. `inherited`: of a parent, before the fork, so the
    kernel does not hold the child's copy to be locked."""

    call: str
    process: int
    thread: int
    time: float
    stack: Stack
    inherited: bool = False


# [start, end) and what locked it: what the call has named, to the byte, though the kernel locks whole pages. What
# else lies on them is the business of whoever locks that.
Part = tuple[int, int, Lock]


class Ledger:
    """Disjoint parts in order of address. `ancestors`: the address spaces that this one was forked from."""

    def __init__(
        self, process: int, program: str, parts: list[Part] | None = None, ancestors: tuple[AddressSpace, ...] = ()
    ) -> None:
        self.process = process
        self.program = program
        self.ancestors = ancestors
        self._parts = parts or []

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    def add(self, start: int, end: int, lock: Lock) -> None:
        """A later lock of the same place counts: it is the one that the program would have to undo."""
        if start < end:
            self.remove(start, end)
            self._parts.append((start, end, lock))
            self._parts.sort(key=lambda part: part[0])

    def remove(self, start: int, end: int) -> None:
        kept: list[Part] = []
        for low, high, lock in self._parts:
            if low < start:
                kept.append((low, min(high, start), lock))
            if high > end:
                kept.append((max(low, end), high, lock))
        # a part that the range does not touch is whole on one side of it
        self._parts = kept

    def within(self, start: int, end: int) -> list[Part]:
        return [
            (max(low, start), min(high, end), lock) for low, high, lock in self._parts if low < end and start < high
        ]

    def change(self, removed: Iterable[Range], moved: Iterable[tuple[int, int, int, int]]) -> None:
        """What a call that succeeded did: see `mlockwipe.memory.sensitive.Change`."""
        there: list[Part] = []
        for start, end, new, new_end in moved:
            for low, high, lock in self.within(start, end):
                grown = new_end if high > end - PAGE_SIZE else high - start + new
                there.append((low - start + new, grown, lock))
        for start, end in removed:
            self.remove(start, end)
        for part in there:
            self.add(*part)

    def of_child(self, process: int, parent: AddressSpace) -> "Ledger":
        """What a forked child has of it."""
        inherited = [(low, high, replace(lock, inherited=True)) for low, high, lock in self._parts]
        return Ledger(process, self.program, inherited, (parent, *self.ancestors))

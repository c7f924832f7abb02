# SPDX-License-Identifier: MIT
"""A set of address ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]  # [start, end) in bytes, page-aligned


class RangeSet:
    """Disjoint, sorted ranges.

    Kept as one flat list of bounds, start and end in turn: an address is inside when an odd number of bounds lies
    at or below it, and adding or removing a range is one slice assignment.
    """

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._bounds: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._bounds[::2], self._bounds[1::2], strict=True)

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._bounds == other._bounds

    def __repr__(self) -> str:
        return "RangeSet([" + ", ".join(f"({start:#x}, {end:#x})" for start, end in self) + "])"

    def copy(self) -> "RangeSet":
        other = RangeSet()
        other._bounds = self._bounds.copy()
        return other

    def clear(self) -> None:
        self._bounds.clear()

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        bounds = self._bounds
        low, high = bisect_left(bounds, start), bisect_right(bounds, end)
        bounds[low:high] = ([] if low & 1 else [start]) + ([] if high & 1 else [end])

    def remove(self, start: int, end: int) -> None:
        if start >= end:
            return
        bounds = self._bounds
        low, high = bisect_left(bounds, start), bisect_right(bounds, end)
        bounds[low:high] = ([start] if low & 1 else []) + ([end] if high & 1 else [])

    def overlaps(self, start: int, end: int) -> bool:
        bounds = self._bounds
        index = bisect_right(bounds, start)
        return start < end and (index & 1 == 1 or (index < len(bounds) and bounds[index] < end))

    def within(self, start: int, end: int) -> list[Range]:
        """The parts of the set that lie in [start, end)."""
        bounds = self._bounds
        found = []
        index = bisect_right(bounds, start)
        index -= index & 1
        while index < len(bounds) and bounds[index] < end:
            low, high = max(bounds[index], start), min(bounds[index + 1], end)
            if low < high:
                found.append((low, high))
            index += 2
        return found

    def gaps(self, start: int, end: int) -> list[Range]:
        """The parts of [start, end) that do not lie in the set."""
        found = RangeSet([(start, end)])
        for part in self.within(start, end):
            found.remove(*part)
        return list(found)

# SPDX-License-Identifier: MIT
"""What a system call does to the sensitive ranges of an address space: a pure function, in two halves.

    entry = at_entry(sensitive, call, released)            # before the kernel executes the call
    sensitive.apply(entry)
    sensitive.apply(at_return(sensitive, call, entry, result, mappings))   # when its result is known

What a successful call leaves unlocked or unmapped goes at the entry and not at the return: by then another thread may
have mapped and locked the same place. A call that fails has it put back.

Source: mlock(2), mremap(2), mm/mlock.c and mm/mremap.c, Linux 6.18.
"""

from collections.abc import Iterable, Sequence

from mlockwipe.linux.arch import TASK_SIZE
from mlockwipe.linux.mman import MCL_CURRENT, MCL_FUTURE, MREMAP_DONTUNMAP, MREMAP_FIXED
from mlockwipe.memory.calls import Call, page_up, span
from mlockwipe.memory.ranges import Range, RangeSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object  # typing takes 4 ms to import


class Sensitive:
    """What of an address space is to be wiped when it is released.

    `future`: mlockall(MCL_FUTURE) is in force. Then `ranges` is all but the holes that what is mapped and unlocked
    leaves. `inherited`: `ranges` has inherited copies, or what was beside a page that MREMAP_DONTUNMAP has
    moved, which the kernel does not hold to be locked.
    """

    __slots__ = ("future", "inherited", "ranges")

    def __init__(self, ranges: RangeSet | None = None, *, future: bool = False, inherited: bool = False) -> None:
        self.ranges = ranges or RangeSet()
        self.future = future
        self.inherited = inherited

    def apply(self, change: "Change") -> None:
        for start, end in change.removed:
            self.ranges.remove(start, end)
        for start, end in change.added:
            self.ranges.add(start, end)
        if change.future is not None:
            self.future = change.future

    def inherit(self, ranges: RangeSet) -> None:
        """After a fork: what is sensitive in the parent is so in the child. MCL_FUTURE is not passed on."""
        self.inherited = True
        self.ranges = ranges.copy()


class Change:
    """What becomes of the sensitive ranges: `removed`, and then `added`.

    `moved`: what of that mremap(2) has moved, as (start, end, new start, new end): it may have grown. `future`: None
    when it stays as it is.
    """

    __slots__ = ("added", "future", "moved", "removed")

    def __init__(
        self,
        removed: Sequence[Range] = (),
        added: Sequence[Range] = (),
        *,
        moved: Sequence[tuple[int, int, int, int]] = (),
        future: bool | None = None,
    ) -> None:
        self.removed = removed
        self.added = added
        self.moved = moved
        self.future = future

    def __bool__(self) -> bool:
        return bool(self.removed or self.added or self.future is not None)


_NOTHING = Change()


class Mappings(Protocol):
    """What the kernel knows of an address space and a call's arguments do not say."""

    def mapped(self, start: int, end: int) -> Iterable[Range]:
        """The parts of [start, end) where anything is mapped."""

    def locked(self, start: int, end: int) -> Iterable[Range]:
        """The parts of [start, end) that the kernel holds to be locked."""

    def private(self) -> Sequence[Range]:
        """All private mappings, each with the room that it may grow into."""

    def room_below(self, start: int) -> int:
        """Where a range that begins at `start` may begin one day, if its mapping grows downwards."""


def at_entry(sensitive: Sensitive, call: Call, released: Sequence[Range]) -> Change:
    """The change that holds from the entry of a call on. `released`: what it gives back, if it succeeds.

    Of `released`, only that part which is sensitive counts.
    """
    ranges, arguments = sensitive.ranges, call.arguments
    removed: list[Range] = []
    match call.name:
        case "munlock":
            removed = ranges.within(*span(arguments[0], arguments[1]))
        case "munlockall":
            removed = list(ranges)
        case "mremap":
            sources = _moving(call, released)
            removed = [part for start, end in (*sources, *released) for part in ranges.within(start, end)]
        case "munmap" | "mmap" | "brk" | "shmat" if not sensitive.future:
            removed = [part for start, end in released for part in ranges.within(start, end)]
        case "uffdio_move":
            # It moves pages to where none are. They are no more locked there than where they come from.
            new, old, length = arguments[:3]
            moved = [(start - old + new, end - old + new) for start, end in ranges.within(*span(old, length))]
            return Change(added=[gap for place in moved for gap in ranges.gaps(*place)])
        case "munmap" | "brk":
            # Where something unlocked goes, whatever is mapped next will be locked.
            return Change(added=[gap for start, end in released for gap in ranges.gaps(start, end)])
    return Change(removed)


def return_matters(sensitive: Sensitive, call: Call) -> bool:
    """Whether the result of a call counts even if nothing has changed at its entry, and it is no lock."""
    return sensitive.future and call.name in ("mmap", "mremap", "munlockall")


def at_return(sensitive: Sensitive, call: Call, entry: Change, result: int, mappings: Mappings) -> Change:
    """The change that the result of a call makes. `entry`: the one that was made at its entry."""
    if not call.succeeds(result):
        return _after_failure(sensitive, call, entry, mappings)
    arguments = call.arguments
    match call.name:
        case "mlock" | "mlock2":
            start, end = span(arguments[0], arguments[1])
            return Change(added=[(mappings.room_below(start), end)])
        case "mlockall":
            return _after_mlockall(sensitive, arguments[0], mappings)
        case "munlockall":
            return Change(future=False)
        case "mmap" if call.locks or sensitive.future:
            return Change(added=[span(result, arguments[1])])
        case "mremap":
            return _after_mremap(sensitive, call, entry, result, mappings)
    return _NOTHING


def _after_failure(sensitive: Sensitive, call: Call, entry: Change, mappings: Mappings) -> Change:
    """All is as it was before, but for what a call does before it fails."""
    back = RangeSet(entry.removed)
    removed = list(entry.added)
    match call.name:
        case "munlock":  # it fails at the first hole, and has unlocked what lies before
            start, end = span(*call.arguments[:2])
            done = start
            for low, high in mappings.mapped(start, end):
                if low != done:
                    break
                done = high
            back.remove(start, done)
            removed.append((start, done))
            _add(back, mappings.locked(start, end))
        case "mlock" | "mlock2":  # it may have locked some; and mlock of PROT_NONE memory fails *and* locks it
            _add(back, mappings.locked(*span(*call.arguments[:2])))
        case "mremap" if call.arguments[3] & MREMAP_FIXED:  # what it has unmapped and moved before it fails stays so
            old, old_length, new_length, _, new = call.arguments[:5]
            for place in span(old, old_length), span(new, new_length):
                _settle(back, place, sensitive, mappings)
        case "munmap" | "brk":  # another thread may have locked meanwhile what stays mapped
            for place in entry.added:
                _add(back, mappings.locked(*place))
    return Change(removed, list(back))


def _settle(ranges: RangeSet, place: Range, sensitive: Sensitive, mappings: Mappings) -> None:
    """See that `ranges` have of a place what is sensitive there now, by what the kernel says."""
    unmapped = RangeSet([place])
    for part in mappings.mapped(*place):
        unmapped.remove(*part)
    for part in list(unmapped) if sensitive.inherited else [place]:  # the kernel does not know of inherited copies
        ranges.remove(*part)
    _add(ranges, mappings.locked(*place))
    if sensitive.future:
        _add(ranges, unmapped)


def _after_mlockall(sensitive: Sensitive, flags: int, mappings: Mappings) -> Change:
    present = mappings.private()
    if flags & MCL_FUTURE:
        # all that will be mapped, so everything but the holes that what is there unlocked leaves
        locked = RangeSet([(0, TASK_SIZE)])
        for start, end in () if flags & MCL_CURRENT else present:
            for gap in sensitive.ranges.gaps(start, end):
                locked.remove(*gap)
        return Change(added=list(locked), future=True)
    if flags & MCL_CURRENT:
        return Change([(0, TASK_SIZE)], present, future=False)
    return Change(future=False)


def _after_mremap(sensitive: Sensitive, call: Call, entry: Change, new: int, mappings: Mappings) -> Change:
    old, old_length, new_length, flags = call.arguments[:4]
    old_length, new_length = page_up(old_length), page_up(new_length)
    old_end, kept = old + old_length, min(old_length, new_length)
    added: list[Range] = []
    moved = []
    if sensitive.future and not flags & MREMAP_DONTUNMAP:  # what is mapped next at the old place will be locked
        left = RangeSet([(old, old_end)])
        left.remove(new, new + new_length)
        added += list(left)
    for start, end in RangeSet(entry.removed).within(old, old + kept):
        grows = end == old_end and _grows_locked(sensitive, new + old_length, new + new_length, mappings)
        place = start - old + new, new + new_length if grows else end - old + new
        moved.append((start, end, *place))
        added.append(place)
    # Under MCL_FUTURE what was not mapped counts as locked, and something unlocked may have come there. Where the
    # program has chosen the place that is settled since the entry. Another thread may have locked it by now.
    chosen = flags & MREMAP_FIXED
    unlocked = RangeSet([(new, new + new_length)] if sensitive.future and not chosen else ())
    for place in added:
        unlocked.remove(*place)
    added += [part for start, end in unlocked for part in mappings.locked(start, end)]
    return Change(list(unlocked), added, moved=moved)


def _moving(call: Call, released: Sequence[Range]) -> list[Range]:
    """What an mremap moves if it succeeds: nothing at the holes, which what it releases has too."""
    old, old_length, _, flags, new = call.arguments[:5]
    start, end = span(old, old_length)
    if not flags & MREMAP_FIXED:
        return [(start, end)]
    parts = [(low - new + old, min(high - new + old, end)) for low, high in released]
    return [part for part in parts if start <= part[0] < part[1]]


def _grows_locked(sensitive: Sensitive, start: int, end: int, mappings: Mappings) -> bool:
    """Whether what a sensitive mapping has grown by is locked: as the mapping is, if it is no inherited copy."""
    return start < end and (not sensitive.inherited or bool(list(mappings.locked(start, end))))


def _add(ranges: RangeSet, more: Iterable[Range]) -> None:
    for start, end in more:
        ranges.add(start, end)


def given_up(call: Call, released: Sequence[Range]) -> list[Range]:
    """What a call unlocks or releases if it succeeds, sensitive or not."""
    match call.name:
        case "munlock":
            return [span(call.arguments[0], call.arguments[1])]
        case "munlockall":
            return [(0, TASK_SIZE)]
    return list(released)

# SPDX-License-Identifier: MIT
"""An address space under supervision: its states, who uses it, and what happens to it at a call and at its end."""

import contextlib
from collections.abc import Iterable

from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.linux.page_batches import drain_page_batches
from mlockwipe.memory import in_flight, wipe
from mlockwipe.memory.calls import Call, page_up, refuses_locked, released, span, vector
from mlockwipe.memory.journal import Journal, SaveArea
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.mappings import KernelMappings, NoMappings
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range, RangeSet
from mlockwipe.memory.sensitive import Change, Sensitive, at_entry, at_return
from mlockwipe.memory.undo import Saved

_LARGE = 16 << 20
_ONLY_RELEASING = frozenset(("munmap", "munlock", "munlockall", "madvise"))


class State:
    """What the supervisor has to do with an address space. Only one that is held has a keeper, and files."""

    memory_fd = -1
    mappings: KernelMappings | NoMappings = NoMappings()


class Unheld(State):
    """Nothing was ever locked in it, or its keeper is yet to come."""


class Held(State):
    """It has a keeper. `slot`: in the journal, None when that was full."""

    def __init__(self, keeper: Keeper, slot: int | None, stack_top: int) -> None:
        self.keeper = keeper
        self.slot = slot
        self.memory_fd = keeper.files.memory
        self.mappings: KernelMappings = KernelMappings(keeper.files, stack_top)

    @property
    def files(self) -> Files:
        return self.keeper.files


class Unprotected(State):
    """A keeper was refused, or killed: reported once, not tried again."""


class Released(State):
    """No task uses it any more: it was wiped, and given back."""


# What may follow what; docs/supervisor.md has the same table, with the events.
TRANSITIONS: dict[type[State], frozenset[type[State]]] = {
    Unheld: frozenset((Held, Unprotected, Released)),
    Held: frozenset((Unprotected, Released)),
    Unprotected: frozenset((Released,)),
    Released: frozenset(),
}


class Family:
    """Address spaces that came out of one another by fork, and so may share pages.

    `legacy` is what those that are gone had to protect, for a child whose parent was killed before the kernel
    reported the fork.
    """

    def __init__(self) -> None:
        self.members = 0
        self.forked = False
        self.legacy = RangeSet()


class CallUnderWay:
    """A call between its entry and its return: what it has changed so far, and the content that it may bring back.

    `failure`: why not all was wiped that should have been. `places`: address and length of each range that
    process_madvise names, as it may do a part of them.
    """

    __slots__ = ("call", "change", "failure", "places", "saved", "wiped_pages")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.change = Change()
        self.places: list[tuple[int, int]] = []
        self.saved: Saved | None = None
        self.wiped_pages = 0
        self.failure: Exception | None = None

    def __bool__(self) -> bool:
        """Whether its return has to be looked at, for what was done at its entry."""
        return bool(self.change or self.saved or self.wiped_pages)

    def may_add(self, result: int) -> bool:
        """Whether anything may have become sensitive, which the journal must have; what ceased to be it may keep."""
        return self.call.name not in _ONLY_RELEASING or result != 0 or bool(self.change.added)


class AddressSpace:
    """One mm of the kernel, as far as the supervisor has to know it. `tids`: the tasks that use it."""

    def __init__(self, family: Family | None = None) -> None:
        self.tids: set[int] = set()
        self.state: State = Unheld()
        self.sensitive = Sensitive()
        self.unwatched = RangeSet()  # part of what is sensitive, if the kernel holds it to be locked
        self._asked = False
        self.program_break: int | None = None  # not known before the first brk(2) that was stopped
        self.stack_top = 0  # 0 when it is not known, for an undumpable process
        self.family = family or Family()
        self.family.members += 1
        self.family.forked |= family is not None

    # -- its states ---------------------------------------------------------------------------------------------

    def _become(self, state: State) -> None:
        assert type(state) in TRANSITIONS[type(self.state)], (self.state, state)
        self.state = state

    @property
    def held(self) -> Held | None:
        return self.state if isinstance(self.state, Held) else None

    @property
    def is_unheld(self) -> bool:
        return isinstance(self.state, Unheld)

    @property
    def is_unprotected(self) -> bool:
        return isinstance(self.state, Unprotected)

    def hold(self, keeper: Keeper, journal: Journal) -> Held:
        """From here on it has a keeper, and the guardian knows of it."""
        held = Held(keeper, journal.open(keeper.pid, self.sensitive.ranges), self.stack_top)
        self._become(held)
        return held

    def leave_unprotected(self, journal: Journal) -> None:
        """No keeper can be had, or it is lost: nothing holds the memory from here on."""
        held = self.held
        self._become(Unprotected())
        if held is not None:
            _give_up(held, journal)

    def forked(self, ranges: RangeSet) -> "AddressSpace":
        """The address space of a child. `ranges`: what was sensitive in this one, and so is in the child's."""
        child = AddressSpace(self.family)
        child.sensitive.inherit(ranges)
        child.program_break = self.program_break
        child.stack_top = self.stack_top
        return child

    def forget_unmapped(self) -> None:
        """Keep of the inherited ranges what this child really has: not what MADV_DONTFORK withheld."""
        ranges = self.sensitive.ranges
        self.sensitive.ranges = RangeSet(
            part for start, end in self.state.mappings.private() for part in ranges.within(start, end)
        )

    def record(self, journal: Journal) -> None:
        """Let the guardian know what is sensitive now."""
        if (held := self.held) is not None and held.slot is not None:
            journal.write(held.slot, self.sensitive.ranges)

    # -- locking ------------------------------------------------------------------------------------------------

    def lock_unwatched(self, call: Call) -> bool:
        """Take an mlock down before it goes on, so that nobody waits for its outcome. False where that won't do.

        The outcome is asked of the kernel when it matters, which it does not after munlock. That is right for the one
        task of an address space alone, of which any later stop shows that its call has ended. And asking takes the
        longer the more memory there is: a program that made us ask is watched from then on.
        """
        start, end = span(call.arguments[0], call.arguments[1])
        if self._asked or len(self.tids) > 1 or start >= end or self.state.mappings.may_grow_down(start):
            return False
        for low, high in self.sensitive.ranges.gaps(start, end):
            self.sensitive.ranges.add(low, high)
            self.unwatched.add(low, high)
        return True

    def ask_for_unwatched(self) -> None:
        """Reduce the sensitive ranges to what is sensitive. Should the kernel not answer, all of it counts."""
        if not self.unwatched or self.held is None:
            return
        self._asked = True
        with contextlib.suppress(OSError):
            for low, high in self.state.mappings.locked():
                self.unwatched.remove(low, high)
            for low, high in self.unwatched:
                self.sensitive.ranges.remove(low, high)
        self.unwatched = RangeSet()

    # -- at a call ----------------------------------------------------------------------------------------------

    @property
    def heap_end(self) -> int:
        """The program break; at first to the page, from where the mapping of the heap ends."""
        if self.program_break is None:
            held = self.held
            if held is None:
                return 0
            self.program_break = held.mappings.heap_end()
        return self.program_break

    def released(self, call: Call, tid: int) -> list[Range]:
        """The ranges whose pages a call of task `tid` gives back if it succeeds, sensitive or not."""
        end = self.heap_end if call.name == "brk" else 0
        return released(call, end, self.state.memory_fd, tid, self.state.mappings.mapped)

    def concerned(self, call: Call, spans: Iterable[Range]) -> list[Range]:
        """The parts of `spans`, which the call would release, that are to be wiped."""
        parts = [part for start, end in spans for part in self.sensitive.ranges.within(start, end)]
        if parts and refuses_locked(call):
            # Only what is inherited is sensitive and not locked.
            found = RangeSet(parts if self.sensitive.inherited and self.held else ())
            for start, end in self.state.mappings.locked() if found else ():
                found.remove(start, end)
            return list(found)
        return parts

    def begin(self, call: Call, spans: list[Range], save_area: SaveArea) -> CallUnderWay:
        """At the entry of a call that releases `spans`: wipe them, and save them for the case that it fails."""
        under_way = CallUnderWay(call)
        if call.name == "process_madvise":
            under_way.places = vector(self.state.memory_fd, call.arguments[1], call.arguments[2])
        parts = self.concerned(call, spans)
        if self.unwatched and (
            call.name in ("mlockall", "mremap") or any(self.unwatched.overlaps(*part) for part in parts)
        ):
            self.ask_for_unwatched()
            parts = self.concerned(call, spans)
        if parts and (held := self.held) is not None:
            try:
                self._wipe_at_entry(held, under_way, parts, save_area)
            except Exception as error:  # of any kind: what was saved may have to be brought back
                under_way.failure = error
        under_way.change = at_entry(self.sensitive, call, spans)
        self.sensitive.apply(under_way.change)
        return under_way

    def _wipe_at_entry(self, held: Held, under_way: CallUnderWay, parts: list[Range], save_area: SaveArea) -> None:
        runs = list(wipe.sensitive_pages(held.files, parts))
        if not runs:
            return
        forked = self.family.forked
        self._part_from_relatives()
        ranges = [run for _, run in runs]
        saved = under_way.saved = Saved(held.keeper, save_area)
        # munmap hardly ever fails, and why it would can be found out before: not worth saving much.
        if under_way.call.name != "munmap" or sum(end - start for start, end in ranges) <= _LARGE:
            saved.save(ranges)
        if forked and saved:
            drain_page_batches()  # reading may have made the pages active, in a batch of this CPU
        if saved or not held.mappings.refuse_unmap(parts):
            under_way.wiped_pages = wipe.clear(held.keeper, runs, dying=False)

    def end(self, under_way: CallUnderWay, result: int) -> Change:
        """The call has returned: settle what it released, or bring back what it did not. What that changes."""
        call, saved = under_way.call, under_way.saved
        succeeded = call.succeeds(result)
        change = Change(added=under_way.change.removed)  # should the kernel not answer: rather too much
        try:
            try:
                change = at_return(self.sensitive, call, under_way.change, result, self.state.mappings)
            finally:
                self.sensitive.apply(change)
            if not succeeded and saved:
                saved.bring_back()
            elif call.name == "process_madvise" and saved:
                for start, end in _left_out(under_way.places, result):
                    saved.bring_back(start, end)
        finally:
            if saved is not None:
                saved.discard()
        if call.name == "munlock":
            self.unwatched.remove(*span(*call.arguments[:2]))
        elif call.name == "munlockall" and succeeded:
            self.unwatched = RangeSet()
        elif call.name == "brk" and succeeded:
            self.program_break = result
        return change

    def abandon(self, under_way: CallUnderWay) -> None:
        """The task died in the call, which may have been done or not: what it released counts as still there."""
        if under_way.saved is not None:
            under_way.saved.discard()
        self.sensitive.apply(Change(added=under_way.change.removed))

    # -- its end ------------------------------------------------------------------------------------------------

    def _part_from_relatives(self) -> None:
        """Before pages are read or written: see that whoever alone still has a page keeps it, and gets no copy."""
        if self.family.forked:
            drain_page_batches()
            # alone from now on, there is nobody any more who could leave references to shared pages behind
            self.family.forked = self.family.members > 1

    def wipe(self, ranges: RangeSet) -> int:
        """No task of the program uses this memory any more: wipe `ranges` of it. The number of pages.

        OSError when a page can't be written.
        """
        for start, end in ranges:
            self.family.legacy.add(start, end)
        held = self.held
        if held is None or not ranges:
            return 0
        in_flight.end_in_flight(held.files, held.keeper.worker.call)
        runs = list(wipe.sensitive_pages(held.files, ranges))
        shared = self.family.members > 1
        self._part_from_relatives()
        return wipe.clear(held.keeper, runs, dying=True, shared=shared)

    def release(self, journal: Journal) -> None:
        """Give the memory back."""
        held = self.held
        self._become(Released())
        self.family.members -= 1
        if held is not None:
            _give_up(held, journal)


def _give_up(held: Held, journal: Journal) -> None:
    held.keeper.let_go()
    if held.slot is not None:
        journal.close(held.slot)  # after that: a keeper that nobody knows of would stay for ever


def _left_out(places: list[tuple[int, int]], done: int) -> list[Range]:
    """The pages of `places` that lie behind the first `done` bytes of them."""
    left = []
    for address, length in places:
        now = min(done, length)
        done -= now
        if now < length:
            left.append(((address + now) & -PAGE_SIZE, page_up(address + length)))
    return left

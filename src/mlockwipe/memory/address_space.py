# SPDX-License-Identifier: MIT
"""An address space under supervision: its states, who uses it, and what happens to it at a call and at its end."""

import contextlib
import errno
from collections.abc import Callable, Iterable

from mlockwipe.linux import procfs
from mlockwipe.linux.arch import PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.mman import MADV_DONTFORK, MREMAP_DONTUNMAP, MREMAP_FIXED, PROT_READ, PROT_WRITE
from mlockwipe.linux.page_batches import drain_page_batches
from mlockwipe.memory import in_flight, wipe
from mlockwipe.memory.calls import Call, page_up, refuses_locked, released, replaces, span, vector
from mlockwipe.memory.journal import Journal, SaveArea
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.mappings import KernelMappings, NoMappings
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range, RangeSet
from mlockwipe.memory.sensitive import Change, Sensitive, at_entry, at_return
from mlockwipe.memory.undo import Saved
from mlockwipe.memory.wipe import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mlockwipe.memory.userfault import Lifted

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

    `alone`: all other tasks that use the memory were stopped for it. `failure`: why not all was wiped that should
    have been. `lifted`: the protection by a userfaultfd. `places`: address and length of each range that
    process_madvise names, as it may do a part of them. `sources`: what is mapped where an mremap moves from.
    """

    __slots__ = ("alone", "call", "change", "failure", "lifted", "places", "saved", "sources", "wiped_pages")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.alone = False
        self.change = Change()
        self.places: list[tuple[int, int]] = []
        self.sources = RangeSet()
        self.saved: Saved | in_flight.Aside | None = None
        self.lifted: Lifted | None = None
        self.wiped_pages = 0
        self.failure: Exception | None = None

    def __bool__(self) -> bool:
        """Whether its return has to be looked at, for what was done at its entry."""
        return bool(self.change or self.saved or self.wiped_pages)

    def discard(self) -> None:
        """What was kept for the case that the call fails."""
        if self.saved is not None:
            self.saved.discard()
        if self.lifted is not None:
            self.lifted.close()

    def may_add(self, result: int) -> bool:
        """Whether anything may have become sensitive, which the journal must have; what ceased to be it may keep."""
        return self.call.name not in _ONLY_RELEASING or result != 0 or bool(self.change.added)


class AddressSpace:
    """One mm of the kernel, as far as the supervisor has to know it. `tids`: the tasks that use it."""

    def __init__(self, family: Family | None = None) -> None:
        self.tids: set[int] = set()
        self.shared = False  # whether several tasks have used it, at any time
        self.state: State = Unheld()
        self.sensitive = Sensitive()
        self.unwatched = RangeSet()  # part of what is sensitive, if the kernel holds it to be locked
        self._asked = False
        self.highest_break = TASK_SIZE  # the program break does not lie above it
        self.stack_top = 0  # 0 when it is not known, for an undumpable process
        self.has_rings = False  # of io_uring or native AIO
        self.has_direct_files = False
        self._asked_for_io = False
        self.aside = RangeSet()  # released by calls, and still referred to by I/O
        self.in_flight = RangeSet()  # the same at its end: what `wipe` has left
        self._moving_aside = 0  # calls under way
        self._sieve: in_flight.Sieve | None = None
        self._has_no_sieve = False
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
        child.highest_break = self.highest_break
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

    def _break_before(self, new: int) -> int:
        """The program break, if one that is set to `new` may release anything of ours; 0 if not.

        The kernel is asked: neighbours of [heap] become one mapping with it.
        """
        if new > self.highest_break:
            self.highest_break = new
            return 0
        held = self.held
        may_concern = self.sensitive.future or self.sensitive.ranges.overlaps(new, page_up(self.highest_break))
        if held is None or not may_concern or new < procfs.heap_start(held.keeper.pid):
            return 0
        end = held.keeper.program_break()
        if self.highest_break == TASK_SIZE:
            self.highest_break = max(end, new)
        return end

    def released(self, call: Call, tid: int) -> list[Range]:
        """The ranges whose pages a call of task `tid` gives back if it succeeds, sensitive or not."""
        end = self._break_before(call.arguments[0]) if call.name == "brk" else 0
        return released(call, end, self.state.memory_fd, tid, self.tids, self.state.mappings.mapped)

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

    def begin(
        self, call: Call, spans: list[Range], save_area: SaveArea, stop_others: Callable[[], None]
    ) -> CallUnderWay:
        """At the entry of a call that releases `spans`: wipe them, and save them for the case that it fails.

        `stop_others`: stops all other tasks that use the memory.
        """
        under_way = CallUnderWay(call)
        if call.name == "process_madvise":
            under_way.places = vector(self.state.memory_fd, call)
        elif call.name == "mremap" and call.arguments[3] & MREMAP_FIXED:
            under_way.sources = RangeSet(self.state.mappings.mapped(*span(call.arguments[0], call.arguments[1])))
        parts = self.concerned(call, spans)
        if self.unwatched and (
            call.name in ("mlockall", "mremap") or any(self.unwatched.overlaps(*part) for part in parts)
        ):
            self.ask_for_unwatched()
            parts = self.concerned(call, spans)
        if parts and (held := self.held) is not None:
            try:
                self._wipe_at_entry(held, under_way, parts, save_area, stop_others)
            except Exception as error:  # of any kind: what was saved may have to be brought back
                under_way.failure = error
        under_way.change = at_entry(self.sensitive, call, spans)
        self.sensitive.apply(under_way.change)
        return under_way

    def _wipe_at_entry(
        self,
        held: Held,
        under_way: CallUnderWay,
        parts: list[Range],
        save_area: SaveArea,
        stop_others: Callable[[], None],
    ) -> None:
        runs = list(wipe.sensitive_pages(held.files, parts))
        if not runs:
            return
        if len(self.tids) > 1 and replaces(under_way.call):
            # The kernel replaces memory at once. Others would see our zeros, and what they write would be lost.
            stop_others()
            under_way.alone = True
            runs = list(wipe.sensitive_pages(held.files, parts))
        if self._may_start_io(held) and self._move_aside(held, under_way, runs):
            return
        forked = self.family.forked
        self._part_from_relatives()
        if any(vma.protected for vma, _ in runs):
            from mlockwipe.memory.userfault import Lifted  # rare

            under_way.lifted = Lifted(held.keeper, runs, self.tids)
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
                if not succeeded:
                    self._bring_back(under_way)  # and lock it again, before the kernel is asked what is locked
                change = at_return(self.sensitive, call, under_way.change, result, self.state.mappings)
            finally:
                self.sensitive.apply(change)
            if succeeded and saved and call.name == "process_madvise":
                for start, end in _left_out(under_way.places, result):
                    saved.bring_back(start, end)
            if under_way.lifted is not None and not succeeded:
                under_way.lifted.put_back()
        finally:
            if isinstance(saved, in_flight.Aside):
                self._let_go_aside(saved, call)
            under_way.discard()
        if call.name == "munlock":
            self.unwatched.remove(*span(*call.arguments[:2]))
        elif call.name == "munlockall" and succeeded:
            self.unwatched = RangeSet()
        elif call.name == "mremap" and call.arguments[3] & MREMAP_DONTUNMAP:
            # It unlocks all of the mapping of which it has moved a part (dontunmap_complete in mm/mremap.c, 6.18).
            self.sensitive.inherited = True
        return change

    def _bring_back(self, under_way: CallUnderWay) -> None:
        if under_way.saved:
            for start, end in self._not_replaced(under_way):
                under_way.saved.bring_back(start, end)

    def _not_replaced(self, under_way: CallUnderWay) -> RangeSet:
        """Where a call that has failed has put nothing else: an mremap of several mappings may have moved some."""
        places = RangeSet([(0, TASK_SIZE)])
        if under_way.sources:
            old, length, _, _, new = under_way.call.arguments[:5]
            for start, end in self.state.mappings.mapped(*span(old, length)):
                under_way.sources.remove(start, end)
            for start, end in under_way.sources:
                places.remove(start - old + new, end - old + new)
        return places

    def abandon(self, under_way: CallUnderWay) -> None:
        """The task died in the call, which may have been done or not: what it released counts as still there."""
        if isinstance(under_way.saved, in_flight.Aside):
            self._moving_aside -= 1  # what was moved aside counts as sensitive since then
        under_way.discard()
        self.sensitive.apply(Change(added=under_way.change.removed))

    # -- I/O that outlasts a call -------------------------------------------------------------------------------

    @property
    def may_move_aside(self) -> bool:
        """Whether there are places that only the ranges tell of, which the journal has to have."""
        return self._sieve is not None

    def _may_start_io(self, held: Held) -> bool:
        """Whether I/O may go on in it while a task releases memory.

        That is looked for once; what comes later, filter two tells.
        """
        if self._asked_for_io:
            return self.has_rings or (self.has_direct_files and len(self.tids) > 1)
        self._asked_for_io = True
        self.has_rings |= self._maps_own_rings(held)
        self.has_direct_files |= in_flight.has_direct_file(next(iter(self.tids), held.keeper.pid))
        return self._may_start_io(held)

    def _maps_own_rings(self, held: Held) -> bool:
        """A forked child has the mappings of its parent's rings, too, whose requests are not its own."""
        return not self.sensitive.inherited and bool(in_flight.rings(held.files))

    def _move_aside(self, held: Held, under_way: CallUnderWay, runs: list[Run]) -> bool:
        """Move what a call releases out of its way, for I/O may refer to it. False where it has to be wiped at once.

        OSError where neither can be.
        """
        sieve = self._ask_sieve(held)
        if sieve is None:
            if self.has_rings:
                raise OSError(errno.EBUSY, "I/O may still refer to them, and this kernel does not tell")
            return False
        locked = RangeSet(held.mappings.locked()) if self.sensitive.inherited else RangeSet([(0, TASK_SIZE)])
        self._open_room(sieve, [run for _, run in runs])
        aside = in_flight.Aside(held.keeper, sieve)
        unmaps = under_way.call.name in ("munmap", "brk", "mremap")
        shut = unmaps and not any(vma.inode for vma, _ in runs)  # of a file the kernel refuses it
        aside.move([run for _, run in runs], locked, shut=shut)
        under_way.saved = aside
        self._moving_aside += 1
        for place in aside.moved:
            self.sensitive.ranges.add(*place)
        under_way.wiped_pages = sum((end - start) // PAGE_SIZE for start, end in aside.moved)
        return True

    def _let_go_aside(self, aside: in_flight.Aside, call: Call) -> None:
        """A call is done: of what was moved aside, it has released what was not brought back."""
        self._moving_aside -= 1
        places = aside.let_go(stays=call.name in ("madvise", "process_madvise"))
        for place in aside.moved:
            self._forget_aside(*place)
        for start, end in places:
            self.sensitive.ranges.add(start, end)
            self.aside.add(start, end)
        self.wipe_aside()

    def _forget_aside(self, start: int, end: int) -> None:
        """Nothing is mapped there any more."""
        self.aside.remove(start, end)
        if not self.sensitive.future:  # or whatever comes there will be locked
            self.sensitive.ranges.remove(start, end)

    def wipe_aside(self) -> None:
        """Wipe what calls have released, but for what I/O still refers to."""
        held = self.held
        if held is None or (sieve := self._ask_sieve(held)) is None:
            return
        self._part_from_relatives()
        places = [part for place in self.aside for part in held.mappings.mapped(*place)]
        for start, end in places:
            try:
                _, left = sieve.wipe(start, end)
            except OSError:
                continue  # of a kind that it does not know: at the end of the process
            done = RangeSet([(start, end)])
            for low, high in left:
                done.remove(low, high)
                in_flight.call_in(held.keeper, "madvise", low, high - low, MADV_DONTFORK)
            for low, high in done:
                in_flight.call_in(held.keeper, "munmap", low, high - low)
                self._forget_aside(low, high)
        if self._moving_aside:
            return
        if not self.aside and sieve.room is not None:
            room = sieve.room
            sieve.close_room()
            self._forget_aside(*room)
        else:
            sieve.keep_room()

    def _open_room(self, sieve: in_flight.Sieve, runs: list[Range]) -> None:
        """Before anything is moved there, the guardian has to know of it."""
        if sieve.room is not None:
            self._forget_aside(*sieve.room)
        self.sensitive.ranges.add(*sieve.open_room(max(end - start for start, end in runs)))

    def _ask_sieve(self, held: Held) -> in_flight.Sieve | None:
        if self._sieve is None and not self._has_no_sieve:
            try:
                self._sieve = in_flight.Sieve(held.keeper)
            except OSError:
                self._has_no_sieve = True
        return self._sieve

    # -- its end ------------------------------------------------------------------------------------------------

    def _part_from_relatives(self) -> None:
        """Before pages are read or written: see that whoever alone still has a page keeps it, and gets no copy."""
        if self.family.forked:
            drain_page_batches()
            # alone from now on, there is nobody any more who could leave references to shared pages behind
            self.family.forked = self.family.members > 1

    def wipe(self, ranges: RangeSet, journal: Journal, *, patient: bool = True) -> int:
        """No task of the program uses this memory any more: wipe `ranges` of it. The number of pages.

        What I/O still refers to is left, and is `in_flight` then. `patient`: so is that of which it can't be known,
        as long as the rings have anything in flight. OSError when a page can't be written.
        """
        for start, end in ranges:
            self.family.legacy.add(start, end)
        held = self.held
        if held is None or not ranges:
            return 0
        # Once found they are unmapped, and what was left is asked for again.
        has_rings = self.has_rings or self.aside or self.in_flight or in_flight.rings(held.files)
        runs = list(wipe.sensitive_pages(held.files, ranges))
        shared = self.family.members > 1
        self._part_from_relatives()
        if any(vma.protected for vma, _ in runs):
            from mlockwipe.memory.userfault import moved_away  # rare

            runs = moved_away(held.keeper, runs)
        pages = 0
        self.in_flight = RangeSet()
        if has_rings:
            pages, runs = self._wipe_by_sieve(held, runs, journal)
            if runs:
                in_flight.end_native(held.files, held.keeper.worker.call)
                own = self.has_rings or self._maps_own_rings(held)
                if patient and own and in_flight.any_in_flight(held.files):
                    for _, run in runs:
                        self.in_flight.add(*run)
                    return pages
        return pages + wipe.clear(held.keeper, runs, dying=True, shared=shared)

    def _wipe_by_sieve(self, held: Held, runs: list[Run], journal: Journal) -> tuple[int, list[Run]]:
        """Wipe dying memory, but for what I/O refers to.

        The number of pages, and the runs of which it can't be known.
        """
        sieve = self._ask_sieve(held)
        if sieve is None or not runs:
            return 0, runs
        for ring in in_flight.rings(held.files):
            if ring.name == in_flight.RING:
                # Nobody uses it any more; but as long as it is mapped it is there, and holds its registered buffers.
                with contextlib.suppress(OSError):
                    in_flight.call_in(held.keeper, "munmap", ring.start, ring.end - ring.start)
        with contextlib.suppress(OSError):
            self._open_room(sieve, [run for _, run in runs])
            self.record(journal)
        pages = 0
        unknown = []
        for vma, (start, end) in runs:
            try:
                if vma.inode:
                    raise OSError(errno.EINVAL, "a private mapping of a file")
                if not vma.writable:
                    in_flight.call_in(held.keeper, "mprotect", start, end - start, PROT_READ | PROT_WRITE)
                more, left = sieve.wipe(start, end)
            except OSError:
                unknown.append((vma, (start, end)))
            else:
                pages += more
                for part in left:
                    self.in_flight.add(*part)
        return pages, unknown

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

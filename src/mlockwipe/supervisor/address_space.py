# SPDX-License-Identifier: MIT
"""An address space under supervision: who uses it, what in it is sensitive, and its keeper."""

import contextlib
import errno
import os
from collections.abc import Iterable

from mlockwipe.linux import process_vm, procfs
from mlockwipe.linux.arch.x86_64 import PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.page_batches import drain_page_batches
from mlockwipe.supervisor import wipe
from mlockwipe.supervisor.calls import (
    MCL_CURRENT,
    MCL_FUTURE,
    MREMAP_DONTUNMAP,
    Call,
    page_up,
    refuses_locked,
    released,
    span,
    vector,
)
from mlockwipe.supervisor.filters import MAP_LOCKED
from mlockwipe.supervisor.journal import Journal, SaveArea
from mlockwipe.supervisor.keeper import Files, Keeper
from mlockwipe.supervisor.ranges import Range, RangeSet

_LARGEST_STACK = 1 << 30
_LARGE = 16 << 20
_ONLY_RELEASING = frozenset(("munmap", "munlock", "munlockall", "madvise"))


class Family:
    """Address spaces that came out of one another by fork, and so may share pages.

    `legacy` is what those that are gone had to protect, for a child whose parent was killed before the kernel
    told of the fork.
    """

    def __init__(self) -> None:
        self.members = 0
        self.forked = False
        self.legacy = RangeSet()


class Pending:
    """A call that is under way: what was taken out of the sensitive set, what was put into it, and the content wiped.

    `failure`: why not all was wiped that should have been. `places`: address and length of each range that
    process_madvise names, as it may do a part of them.
    """

    __slots__ = ("call", "failure", "places", "put", "saved", "taken", "wiped_pages")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.taken: list[Range] = []
        self.put: list[Range] = []
        self.places: list[tuple[int, int]] = []
        self.saved: list[tuple[int, memoryview]] = []
        self.wiped_pages = 0
        self.failure: OSError | None = None


class AddressSpace:
    """One mm of the kernel, as far as the supervisor has to know it."""

    def __init__(self, family: Family | None = None) -> None:
        self.tids: set[int] = set()
        self.ranges = RangeSet()
        self.unwatched = RangeSet()  # part of `ranges`, sensitive if the kernel holds it to be locked
        self._asked = False
        self.inherited = False  # whether `ranges` has inherited copies, which the kernel does not hold to be locked
        self.future = False  # mlockall(MCL_FUTURE): what is mapped from now on is locked
        self.program_break: int | None = None  # not known before the first brk(2) that was stopped
        self.stack_top = 0  # 0 when it is not known, for an undumpable process
        self.keeper: Keeper | None = None
        self.unprotected = False  # a keeper was refused: said once, not tried again
        self.family = family or Family()
        self.family.members += 1
        self.family.forked |= family is not None
        self._slot: int | None = None

    @property
    def files(self) -> Files:
        """The keeper's view of the memory; only for an address space that has a keeper."""
        assert self.keeper is not None
        return self.keeper.files

    @property
    def memory_fd(self) -> int:
        return self.keeper.files.memory if self.keeper else -1

    @property
    def heap_end(self) -> int:
        """The program break; at first to the page, from where the mapping of the heap ends."""
        if self.keeper is None:
            return 0
        if self.program_break is None:
            heap = (vma.end for vma in procfs.vmas(self.files.maps, 0, TASK_SIZE) if vma.name == "[heap]")
            self.program_break = max(heap, default=0)
        return self.program_break

    # -- keeping the journal ------------------------------------------------------------------------------------

    def enter(self, journal: Journal) -> None:
        """From here on the guardian knows of this address space."""
        assert self.keeper is not None
        self._slot = journal.open(self.keeper.pid, self.ranges)

    def record(self, journal: Journal) -> None:
        if self._slot is not None:
            journal.write(self._slot, self.ranges)

    def leave(self, journal: Journal) -> None:
        if self._slot is not None:
            journal.close(self._slot)
            self._slot = None

    # -- locking ------------------------------------------------------------------------------------------------

    def _ask_kernel(self, start: int, end: int) -> None:
        """Add what the kernel holds to be locked in [start, end)."""
        if self.keeper is None:
            return
        for low, high in wipe.locked_ranges(self.keeper.files):
            self.ranges.add(max(low, start), min(high, end))

    def lock_unwatched(self, call: Call) -> bool:
        """Take an mlock down before it goes on, so that nobody waits for its outcome. False where that won't do.

        The outcome is asked of the kernel when it matters, which it does not after munlock. That is right for the one
        task of an address space alone, of which any later stop tells that its call has ended. And asking takes the
        longer the more memory there is: a program that made us ask is watched from then on.
        """
        start, end = span(call.arguments[0], call.arguments[1])
        if self._asked or len(self.tids) > 1 or start >= end or self._may_grow_down(start):
            return False
        for low, high in self.ranges.gaps(start, end):
            self.ranges.add(low, high)
            self.unwatched.add(low, high)
        return True

    def ask_for_unwatched(self) -> None:
        """Reduce `ranges` to what is sensitive. Should the kernel not tell, all of it counts."""
        if not self.unwatched or self.keeper is None:
            return
        self._asked = True
        with contextlib.suppress(OSError):
            for low, high in wipe.locked_ranges(self.keeper.files):
                self.unwatched.remove(low, high)
            for low, high in self.unwatched:
                self.ranges.remove(low, high)
        self.unwatched = RangeSet()

    def _lock_all(self, flags: int) -> None:
        present = self._private_mappings()
        if flags & MCL_FUTURE:
            # all that will be mapped, so everything but the holes that what is there unlocked leaves
            unlocked = RangeSet() if flags & MCL_CURRENT else RangeSet(present)
            for start, end in self.ranges:
                unlocked.remove(start, end)
            self.ranges = RangeSet([(0, TASK_SIZE)])
            for start, end in unlocked:
                self.ranges.remove(start, end)
        elif flags & MCL_CURRENT:
            inherited = self.ranges if self.inherited else RangeSet()
            self.ranges = RangeSet(present)
            for start, end in inherited:
                self.ranges.add(start, end)
        self.future = bool(flags & MCL_FUTURE)

    def _private_mappings(self) -> list[Range]:
        """What mlockall(MCL_CURRENT) locks, the stack with the room that it may grow into."""
        found = []
        below = 0
        for vma in procfs.vmas(self.files.maps, 0, TASK_SIZE):
            if not vma.shared:
                found.append((below if vma.name == "[stack]" else vma.start, vma.end))
            below = vma.end
        return found

    def _may_grow_down(self, start: int) -> bool:
        return self.stack_top - _LARGEST_STACK < start < self.stack_top

    def _room_below(self, start: int) -> int:
        """Where a range that begins at `start` may begin one day: the lowest mapping of the stack grows downwards."""
        if not self._may_grow_down(start):
            return start
        below = lowest = 0
        for vma in procfs.vmas(self.files.maps, 0, self.stack_top):
            if vma.start != lowest:
                below, first = lowest, vma.start
            lowest = vma.end
        return below if first == start else start

    def inherit(self, ranges: RangeSet, program_break: int | None, stack_top: int) -> None:
        """After a fork: what is sensitive in the parent is so in the child. Its MCL_FUTURE is not passed on."""
        self.inherited = True
        self.ranges = ranges.copy()
        self.program_break = program_break
        self.stack_top = stack_top

    def forget_unmapped(self) -> None:
        """Keep of the inherited ranges what this child really has: not what MADV_DONTFORK withheld."""
        mapped = self._private_mappings()
        self.ranges = RangeSet(part for start, end in mapped for part in self.ranges.within(start, end))

    # -- releasing ----------------------------------------------------------------------------------------------

    def concerns(self, call: Call, tid: int) -> list[Range]:
        """The sensitive ranges that a call would release."""
        parts = [part for start, end in self._released(call, tid) for part in self.ranges.within(start, end)]
        if parts and refuses_locked(call):
            # Only what is inherited is sensitive and not locked.
            found = RangeSet(parts if self.inherited and self.keeper else ())
            for start, end in wipe.locked_ranges(self.files) if found else ():
                found.remove(start, end)
            return list(found)
        return parts

    def _released(self, call: Call, tid: int) -> list[Range]:
        return released(call, self.heap_end if call.name == "brk" else 0, self.memory_fd, tid)

    def begin(self, call: Call, tid: int, save_area: SaveArea) -> Pending:
        """At the entry of a call: wipe what it releases, and save that for the case that it fails."""
        pending = Pending(call)
        if call.name == "process_madvise":
            pending.places = vector(self.memory_fd, call.arguments[1], call.arguments[2])
        parts = self.concerns(call, tid)
        if self.unwatched and (
            call.name in ("mlockall", "mremap") or any(self.unwatched.overlaps(*part) for part in parts)
        ):
            self.ask_for_unwatched()
            parts = self.concerns(call, tid)
        if parts and self.keeper:
            try:
                runs = list(wipe.sensitive_pages(self.files, parts))
                if runs:
                    forked = self.family.forked
                    self._part_from_relatives()
                    pending.saved = self._save(call, runs, save_area)
                    if forked and pending.saved:
                        drain_page_batches()  # reading may have made the pages active, in a batch of this CPU
                    if pending.saved or not self._will_fail(parts):
                        pending.wiped_pages = wipe.clear(self.keeper, runs, dying=False)
            except OSError as error:
                pending.failure = error
        pending.taken = self._take(call, parts)
        if self.future and call.name in ("munmap", "brk"):
            pending.put = self._fill_holes(self._released(call, tid))
        return pending

    def _fill_holes(self, spans: list[Range]) -> list[Range]:
        """Under MCL_FUTURE: where something unlocked goes, whatever is mapped next will be locked."""
        holes = [gap for start, end in spans for gap in self.ranges.gaps(start, end)]
        for start, end in holes:
            self.ranges.add(start, end)
        return holes

    def _take(self, call: Call, parts: list[Range]) -> list[Range]:
        """Take out of the sensitive set what a successful call leaves unlocked or unmapped.

        Now and not when the call has returned: by then another thread may have mapped and locked the same place.
        """
        arguments = call.arguments
        match call.name:
            case "munlock":
                start, end = span(arguments[0], arguments[1])
                taken = self.ranges.within(start, end)
            case "munlockall":
                taken = list(self.ranges)
            case "mremap":
                taken = parts + self.ranges.within(*span(arguments[0], arguments[1]))
            case "madvise" | "process_madvise":
                taken = []
            case _:
                taken = [] if self.future else parts
        for start, end in taken:
            self.ranges.remove(start, end)
        return taken

    def _save(self, call: Call, runs: list[wipe.Run], save_area: SaveArea) -> list[tuple[int, memoryview]]:
        """The content of `runs`, nothing when it is too much to be saved, or not worth it: munmap hardly ever fails,
        and why it would can be found out before.
        """
        saved: list[tuple[int, memoryview]] = []
        if call.name == "munmap" and sum(end - start for _, (start, end) in runs) > _LARGE:
            return saved
        try:
            for _, (start, end) in runs:
                room = save_area.take(end - start)
                if room is None:
                    _give_back(saved, save_area)
                    return []
                saved.append((start, room))
                self._read(start, room)
        except OSError:
            _give_back(saved, save_area)
            raise
        return saved

    def _read(self, address: int, room: memoryview) -> None:
        """Where the program itself can't, through the kernel's page that its wiping goes through next, as a rule."""
        assert self.keeper is not None
        read = process_vm.read_into(self.keeper.pid, address, room)
        if read < len(room) and os.preadv(self.files.memory, [room[read:]], address + read) < len(room) - read:
            raise OSError(errno.EIO, "it can't be saved")

    def _write(self, address: int, content: memoryview) -> None:
        assert self.keeper is not None
        written = process_vm.write(self.keeper.pid, address, content)
        if written < len(content):
            os.pwrite(self.files.memory, content[written:], address + written)

    def _will_fail(self, parts: list[Range]) -> bool:
        """Whether the kernel will refuse to unmap `parts`: sealed mappings, or no room for the pieces."""
        assert self.keeper is not None
        text = procfs.read_all(self.keeper.files.smaps).decode(errors="surrogateescape")
        mappings = list(procfs.vma_flags(text))
        limit = int(procfs.sysctl("vm/max_map_count"))
        return len(mappings) >= limit - 1 or any(
            "sl" in flags and vma.start < end and start < vma.end for vma, flags in mappings for start, end in parts
        )

    def end(self, pending: Pending, result: int, save_area: SaveArea) -> bool:
        """The call has returned: settle what it released, or bring back what it did not.

        Whether anything may have become sensitive, which the journal must have; what ceased to be so it may keep.
        """
        call = pending.call
        try:
            if -4096 < result < 0 or (call.name == "brk" and result != call.arguments[0]):
                self._restore(pending)
            elif call.name == "process_madvise":
                for start, end in _left_out(pending.places, result):
                    self._bring_back(pending, start, end)
            else:
                self._settle(pending, result)
        finally:
            _give_back(pending.saved, save_area)
        return call.name not in _ONLY_RELEASING or result != 0 or bool(pending.put)

    def abandon(self, pending: Pending, save_area: SaveArea) -> None:
        """The task died in the call, which may have been done or not: what it released counts as still there."""
        _give_back(pending.saved, save_area)
        for start, end in pending.taken:
            self.ranges.add(start, end)

    def _restore(self, pending: Pending) -> None:
        """A call has failed: all is as it was before, as far as it still is."""
        for start, end in pending.taken:
            self.ranges.add(start, end)
        for start, end in pending.put:
            self.ranges.remove(start, end)
        self._bring_back(pending)
        match pending.call.name:
            case "munlock":  # it fails at a hole, and has unlocked what lies before
                start, end = span(*pending.call.arguments[:2])
                # A hole stays what it was: under MCL_FUTURE what is mapped there will be locked.
                for vma in procfs.vmas(self.files.maps, start, end) if self.keeper else ():
                    self.ranges.remove(max(start, vma.start), min(end, vma.end))
                self.unwatched.remove(start, end)
                self._ask_kernel(start, end)
            case "mlock" | "mlock2":  # it may have locked some; and mlock of PROT_NONE memory fails *and* locks it
                self._ask_kernel(*span(*pending.call.arguments[:2]))

    def _bring_back(self, pending: Pending, low: int = 0, high: int = TASK_SIZE) -> None:
        """What was saved in [low, high), where the pages still are: a call may fail half-way through."""
        for address, room in pending.saved:
            first, last = max(address, low), min(address + len(room), high)
            for start, end in procfs.anonymous_pages(self.files.pagemap, first, last) if first < last else ():
                self._write(start, room[start - address : end - address])

    def _settle(self, pending: Pending, result: int) -> None:
        call = pending.call
        arguments = call.arguments
        match call.name:
            case "mlock" | "mlock2":
                start, end = span(arguments[0], arguments[1])
                self.ranges.add(self._room_below(start), end)
            case "mlockall":
                self._lock_all(arguments[0])
            case "munlock":
                self.unwatched.remove(*span(arguments[0], arguments[1]))
            case "munlockall":
                self.unwatched = RangeSet()
                self.future = False
            case "brk":
                self.program_break = result
            case "mmap":
                if arguments[3] & MAP_LOCKED or self.future:
                    self.ranges.add(*span(result, arguments[1]))
            case "mremap":
                self._settle_mremap(pending, result)

    def _settle_mremap(self, pending: Pending, new: int) -> None:
        old, old_length, new_length, flags = pending.call.arguments[:4]
        old_end, kept = old + page_up(old_length), min(page_up(old_length), page_up(new_length))
        moved = RangeSet(pending.taken).within(old, old + kept)
        if self.future:
            self.ranges.add(old, old_end)
        self.ranges.remove(new, new + page_up(new_length))
        for start, end in moved:
            self.ranges.add(start - old + new, end - old + new)
            if end == old_end and not flags & MREMAP_DONTUNMAP:
                self.ranges.add(end - old + new, new + page_up(new_length))  # a locked mapping grows locked

    # -- wiping -------------------------------------------------------------------------------------------------

    def _part_from_relatives(self) -> None:
        """Before pages are read or written: see that whoever alone still has a page keeps it, and gets no copy."""
        if self.family.forked:
            drain_page_batches()
            # alone from now on, there is nobody any more who could leave references to shared pages behind
            self.family.forked = self.family.members > 1

    def release(self, journal: Journal, *, unmap_trapped: bool) -> int:
        """No task of the program uses this memory any more: wipe it and give it back. The number of pages."""
        pages = 0
        self.ask_for_unwatched()
        for start, end in self.ranges:
            self.family.legacy.add(start, end)
        if self.keeper is not None:
            try:
                if self.ranges:
                    wipe.end_asynchronous_io(self.files, self.keeper.worker.call)
                    runs = list(wipe.sensitive_pages(self.files, self._final_ranges(unmap_trapped)))
                    shared = self.family.members > 1
                    self._part_from_relatives()
                    pages = wipe.clear(self.keeper, runs, dying=True, shared=shared)
            finally:
                self.keeper.let_go()
                self.leave(journal)  # after that: a keeper that nobody knows of would stay for ever
                self.keeper = None
        self.family.members -= 1
        return pages

    def lose_keeper(self, journal: Journal) -> None:
        """The keeper was killed and is gone: nothing holds the memory any more."""
        assert self.keeper is not None
        self.leave(journal)
        self.keeper.let_go()
        self.keeper = None
        self.unprotected = True

    def _final_ranges(self, unmap_trapped: bool) -> Iterable[Range]:
        assert self.keeper is not None
        if unmap_trapped or self.inherited:
            return self.ranges
        # unmaps were not seen, so an address in the set may have been mapped anew: let the kernel say what is locked
        locked = wipe.locked_ranges(self.keeper.files)
        return [part for start, end in locked for part in self.ranges.within(start, end)]


def _left_out(places: list[tuple[int, int]], done: int) -> list[Range]:
    """The pages of `places` that lie behind the first `done` bytes of them."""
    left = []
    for address, length in places:
        now = min(done, length)
        done -= now
        if now < length:
            left.append(((address + now) & -PAGE_SIZE, page_up(address + length)))
    return left


def _give_back(saved: list[tuple[int, memoryview]], save_area: SaveArea) -> None:
    for _, room in saved:
        save_area.give_back(room)

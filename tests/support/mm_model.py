# SPDX-License-Identifier: MIT
"""A model of what Linux 6.18 does to an address space when memory is mapped, moved and locked, page by page.

Written from mlock(2), mremap(2) and the kernel's mm/mlock.c, mm/mremap.c, mm/mmap.c, mm/vma.c, mm/madvise.c and
ipc/shm.c. test_sensitive.py also has the kernel execute the same calls, and compares.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mlockwipe.linux import mman
from mlockwipe.linux.arch import PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.shm import SHM_REMAP
from mlockwipe.memory.calls import Call
from mlockwipe.memory.ranges import Range

SEGMENT = 3  # pages of the one System V segment
_HEAP = 1 << 40  # where the origins of the heap's pages begin

_MREMAP_FLAGS = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED | mman.MREMAP_DONTUNMAP


@dataclass(slots=True)
class Page:
    """A mapped page. `origin`: its place in what is mapped; neighbours there that are alike are in one VMA.

    `inherited`: it is a copy of what was sensitive in the parent, and nobody has unlocked it. `forgotten`: it may be
    sensitive or not. Nobody has unlocked it, but the kernel calls it unlocked, because MREMAP_DONTUNMAP has moved
    some other part of its VMA; or it may be such a copy, where an mremap of several VMAs has failed half-way.
    """

    origin: int
    shared: bool = False
    inaccessible: bool = False
    locked: bool = False
    on_fault: bool = False
    sealed: bool = False
    inherited: bool = False
    forgotten: bool = False

    def goes_on_in(self, other: "Page") -> bool:
        return (other.origin, other.shared, other.inaccessible, other.locked, other.on_fault, other.sealed) == (
            self.origin + 1, self.shared, self.inaccessible, self.locked, self.on_fault, self.sealed
        )  # fmt: skip


class Refused(Exception):
    """With the errno of a call that fails."""


class Model:
    """The pages of an address space by number, counted from `base`. It answers as Mappings, too.

    `choose`: where so many pages go when the kernel may decide.
    """

    def __init__(self, base: int, heap: int, choose: Callable[[int], int] | None = None) -> None:
        self.base = base
        self.pages: dict[int, Page] = {}
        self.future = self.future_on_fault = False  # mm->def_flags
        self.may_lock = True  # RLIMIT_MEMLOCK
        self.heap = heap
        self.program_break = self.address(heap)
        self.choose = choose or self._lowest_room
        self.next_origin = 0

    def address(self, page: int) -> int:
        return self.base + page * PAGE_SIZE

    def number(self, address: int) -> int:
        return (address - self.base) // PAGE_SIZE

    def origin(self, count: int) -> int:
        """Of `count` pages that are mapped together, and apart from all that was mapped before."""
        first, self.next_origin = self.next_origin, self.next_origin + count + 1
        return first

    def expected(self, page: int) -> bool | None:
        """Whether a page is sensitive; None where it does not matter."""
        found = self.pages.get(page)
        if found is None:
            return self.future
        return None if found.shared or found.forgotten else found.locked or found.inherited

    # -- Mappings ---------------------------------------------------------------------------------------------------

    def _runs(self, start: int, end: int, wanted: Callable[[Page], bool]) -> Iterator[Range]:
        first, last = self.number(start), self.number(end)
        for page in sorted(self.pages):
            if first <= page < last and wanted(self.pages[page]):
                yield self.address(page), self.address(page + 1)

    def mapped(self, start: int, end: int) -> list[Range]:
        return list(self._runs(start, end, lambda page: True))

    def locked(self, start: int, end: int) -> list[Range]:
        return list(self._runs(start, end, lambda page: page.locked))

    def private(self) -> list[Range]:
        return list(self._runs(0, TASK_SIZE, lambda page: not page.shared))

    def room_below(self, start: int) -> int:
        return start

    # -- calls ------------------------------------------------------------------------------------------------------

    def execute(self, call: Call) -> int:
        """The result of a call that has been done."""
        try:
            return int(getattr(self, f"_{call.name}")(*call.arguments))
        except Refused as refused:
            return -int(refused.args[0])

    def _range(self, address: int, length: int) -> range:
        """The pages that a range touches."""
        return range(self.number(address), self.number(address + length + PAGE_SIZE - 1))

    def _set_locked(self, pages: range, locked: bool, on_fault: bool) -> None:
        """apply_vma_lock_flags: it stops at the first hole."""
        for number in pages:
            page = self.pages.get(number)
            if page is None:
                raise Refused(errno.ENOMEM)
            self._set(page, locked, on_fault)

    @staticmethod
    def _set(page: Page, locked: bool, on_fault: bool) -> None:
        page.locked, page.on_fault = locked, locked and on_fault
        page.forgotten = False
        page.inherited = page.inherited and locked

    def _mlock(self, address: int, length: int, *_: int) -> int:
        return self._mlock2(address, length, 0)

    def _mlock2(self, address: int, length: int, flags: int, *_: int) -> int:
        if flags & ~mman.MLOCK_ONFAULT:
            raise Refused(errno.EINVAL)
        if not self.may_lock:
            raise Refused(errno.EPERM)
        pages = self._range(address, length) if length else range(0)
        self._set_locked(pages, True, flags != 0)
        if not flags and any(self.pages[page].inaccessible for page in pages):
            raise Refused(errno.ENOMEM)  # it can't be populated, and stays locked
        return 0

    def _munlock(self, address: int, length: int, *_: int) -> int:
        self._set_locked(self._range(address, length) if length else range(0), False, False)
        return 0

    def _mlockall(self, flags: int, *_: int) -> int:
        both = mman.MCL_CURRENT | mman.MCL_FUTURE
        if flags & ~(both | mman.MCL_ONFAULT) or not flags & both:
            raise Refused(errno.EINVAL)
        if not self.may_lock:
            raise Refused(errno.EPERM)
        self.future = flags & mman.MCL_FUTURE != 0
        self.future_on_fault = self.future and flags & mman.MCL_ONFAULT != 0
        if flags & mman.MCL_CURRENT:
            for page in self.pages.values():
                self._set(page, True, flags & mman.MCL_ONFAULT != 0)
        return 0

    def _munlockall(self, *_: int) -> int:
        self.future = self.future_on_fault = False
        for page in self.pages.values():
            self._set(page, False, False)
        return 0

    def _unmap(self, pages: range) -> None:
        if any(page in self.pages and self.pages[page].sealed for page in pages):
            raise Refused(errno.EPERM)
        for page in pages:
            self.pages.pop(page, None)

    def _munmap(self, address: int, length: int, *_: int) -> int:
        if address % PAGE_SIZE or length == 0:
            raise Refused(errno.EINVAL)
        self._unmap(self._range(address, length))
        return 0

    def _is_free(self, pages: range) -> bool:
        return not any(page in self.pages for page in pages)

    def _lowest_room(self, count: int) -> int:
        page = 0
        while not self._is_free(range(page, page + count)):
            page += 1
        return page

    def _map(self, pages: range, *, shared: bool = False, inaccessible: bool = False, locked: bool = False) -> None:
        origin = self.origin(len(pages))
        for index, page in enumerate(pages):
            self.pages[page] = Page(
                origin + index, shared, inaccessible, locked or self.future, self.future and self.future_on_fault
            )

    def _mmap(self, address: int, length: int, protection: int, flags: int, *_: int) -> int:
        fixed = flags & (mman.MAP_FIXED | mman.MAP_FIXED_NOREPLACE)
        locked = flags & mman.MAP_LOCKED != 0
        if length == 0:
            raise Refused(errno.EINVAL)
        if locked and not self.may_lock:
            raise Refused(errno.EPERM)
        pages = self._range(address & -PAGE_SIZE, length)
        if fixed:
            if address % PAGE_SIZE:
                raise Refused(errno.EINVAL)
            if flags & mman.MAP_FIXED_NOREPLACE and not self._is_free(pages):
                raise Refused(errno.EEXIST)
            self._unmap(pages)
        elif address == 0 or not self._is_free(pages):
            first = self.choose(len(pages))
            pages = range(first, first + len(pages))
        self._map(
            pages,
            shared=flags & mman.MAP_SHARED != 0,
            inaccessible=protection == mman.PROT_NONE,
            locked=locked,
        )
        return self.address(pages[0])

    def _shmat(self, _: int, address: int, flags: int, *__: int) -> int:
        pages = self._range(address & -PAGE_SIZE, SEGMENT * PAGE_SIZE)
        if address % PAGE_SIZE or (not flags & SHM_REMAP and not self._is_free(pages)):
            raise Refused(errno.EINVAL)
        self._unmap(pages)
        self._map(pages, shared=True)
        return address

    def _brk(self, address: int, *_: int) -> int:
        old, new = (self.number(end + PAGE_SIZE - 1) for end in (self.program_break, address))
        if address < self.address(self.heap):
            return self.program_break
        if address <= self.program_break:
            if new < old:
                if self._is_free(range(new, old)):
                    return self.program_break
                try:
                    self._unmap(range(new, old))
                except Refused:
                    return self.program_break
        elif new > old:
            if not self._is_free(range(old, new + 1)):
                return self.program_break
            for page in range(old, new):
                self.pages[page] = Page(_HEAP + page, locked=self.future, on_fault=self.future_on_fault)
        self.program_break = address
        return address

    def _madvise(self, address: int, length: int, advice: int, *_: int) -> int:
        """None of the advices that release pages changes a mapping."""
        pages = [self.pages.get(page) for page in self._range(address, length)]
        if address % PAGE_SIZE:
            raise Refused(errno.EINVAL)
        if advice != mman.MADV_DONTNEED_LOCKED and any(page is not None and page.locked for page in pages):
            raise Refused(errno.EINVAL)
        if None in pages:
            raise Refused(errno.ENOMEM)
        return 0

    def _process_madvise(self, *_: int) -> int:
        raise Refused(errno.EBADF)

    def _mseal(self, address: int, length: int, *_: int) -> int:
        pages = self._range(address, length)
        if address % PAGE_SIZE:
            raise Refused(errno.EINVAL)
        if any(page not in self.pages for page in pages):
            raise Refused(errno.ENOMEM)
        for page in pages:
            self.pages[page].sealed = True
        return 0

    # -- mremap -----------------------------------------------------------------------------------------------------

    def _same_vma(self, page: int) -> bool:
        """Whether a page and the next are in one VMA."""
        one, other = self.pages.get(page), self.pages.get(page + 1)
        return one is not None and other is not None and one.goes_on_in(other)

    def _vma(self, page: int) -> range:
        first, last = page, page
        while self._same_vma(first - 1):
            first -= 1
        while self._same_vma(last):
            last += 1
        return range(first, last + 1)

    def _mremap(self, address: int, old_length: int, new_length: int, flags: int, new_address: int, *_: int) -> int:
        old = self._range(address & -PAGE_SIZE, old_length)
        count = len(self._range(self.base, new_length))
        if flags & ~_MREMAP_FLAGS or address % PAGE_SIZE or count == 0:
            raise Refused(errno.EINVAL)
        new = self.number(new_address)
        if flags & (mman.MREMAP_FIXED | mman.MREMAP_DONTUNMAP):
            if new_address % PAGE_SIZE or not flags & mman.MREMAP_MAYMOVE:
                raise Refused(errno.EINVAL)
            if flags & mman.MREMAP_DONTUNMAP and len(old) != count:
                raise Refused(errno.EINVAL)
            if old.stop > new and new + count > old.start:
                raise Refused(errno.EINVAL)
        if flags & mman.MREMAP_FIXED and len(old) == count:
            return self._move_all(old, flags, new)
        self._check(old, count, flags)
        if flags & mman.MREMAP_FIXED:
            self._unmap(range(new, new + count))
            if old.start not in self.pages:
                raise Refused(errno.EFAULT)
            if count < len(old):
                self._unmap(range(old.start + count, old.stop))
                old = range(old.start, old.start + count)
            return self._move(old, count, flags, new)
        if flags & mman.MREMAP_DONTUNMAP:
            hinted = range(new, new + count)
            return self._move(old, count, flags, new if new_address and self._is_free(hinted) else self.choose(count))
        if count <= len(old):
            self._unmap(range(old.start + count, old.stop))
            return address
        room = range(old.stop, old.start + count)
        if old and not self._same_vma(old[-1]) and self._is_free(room):
            self._grow(self.pages[old[-1]], room)
            return address
        if not flags & mman.MREMAP_MAYMOVE:
            raise Refused(errno.ENOMEM)
        return self._move(old, count, flags, self.choose(count))

    def _check(self, old: range, count: int, flags: int) -> None:
        """check_prep_vma"""
        if old.start not in self.pages:
            raise Refused(errno.EFAULT)
        page = self.pages[old.start]
        if page.sealed:
            raise Refused(errno.EPERM)
        if count > len(old) or flags & (mman.MREMAP_FIXED | mman.MREMAP_DONTUNMAP):
            if not old and not page.shared:
                raise Refused(errno.EINVAL)
            if old.start + min(count, len(old)) > self._vma(old.start).stop:
                raise Refused(errno.EFAULT)

    def _move_all(self, old: range, flags: int, new: int) -> int:
        """remap_move: one mapping after another; what is done stays done when one fails. Linux 6.17."""
        if old.start not in self.pages:
            raise Refused(errno.EFAULT)
        page = old.start
        while page < old.stop:
            if page in self.pages:
                part = range(page, min(self._vma(page).stop, old.stop))
                there = new + page - old.start
                try:
                    self._check(part, len(part), flags)
                    self._unmap(range(there, there + len(part)))
                except Refused:
                    self._forget_copies(old, new)
                    raise
                self._move(part, len(part), flags, there)
                page = part.stop
            else:
                page += 1
        return self.address(new)

    def _forget_copies(self, old: range, new: int) -> None:
        """Of copies, which are not locked, nobody can say how far they have moved."""
        if not any(page.inherited for page in self.pages.values()):
            return
        for page in (*old, *range(new, new + len(old))):
            if page in self.pages and not self.pages[page].locked:
                self.pages[page].forgotten = True

    def _move(self, old: range, count: int, flags: int, new: int) -> int:
        """move_vma"""
        source = self._vma(old.start)
        moved = [replace(self.pages[page]) for page in old]
        if not old:  # a second mapping of what is shared
            like = replace(self.pages[source.start])
            like.origin = self.pages[old.start].origin - 1
            self._grow(like, range(new, new + count))
            return self.address(new)
        if flags & mman.MREMAP_DONTUNMAP:
            for page in source:  # all of it loses VM_LOCKED, whatever part has moved
                self.pages[page].forgotten |= self.pages[page].locked and page not in old
                self.pages[page].locked = self.pages[page].on_fault = False
            for page in old:
                self.pages[page].inherited = self.pages[page].forgotten = False
        else:
            for page in old:
                del self.pages[page]
        for index, one in enumerate(moved):
            self.pages[new + index] = one
        self._grow(moved[-1], range(new + len(old), new + count))
        return self.address(new)

    def _grow(self, last: Page, room: range) -> None:
        for index, page in enumerate(room):
            self.pages[page] = replace(last, origin=last.origin + 1 + index, inherited=False)

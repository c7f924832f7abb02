# SPDX-License-Identifier: MIT
"""Room for secrets: small ones share a locked page, a large one has pages of its own."""

import atexit
import os
from collections import deque
from threading import RLock

from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe.locked.pages import LockedPages

GRANULE = 16  # bytes; what small secrets are rounded up to
GRANULES = PAGE_SIZE // GRANULE
LARGEST_SHARING = PAGE_SIZE // 2


class SharedPage:
    """A locked page, cut into granules. `free` has a bit for each: set, it is free; the lowest is the first."""

    ALL = (1 << GRANULES) - 1

    def __init__(self) -> None:
        self.pages = LockedPages(PAGE_SIZE)
        self.free = self.ALL
        self._longest = GRANULES  # no run of free granules is longer; there may be none of that length

    def take(self, granules: int) -> int:
        """The first granule of a run that is taken by this, or -1 where none is long enough."""
        if granules > self._longest:
            return -1
        first = first_run(self.free, granules)
        if first < 0:
            self._longest = granules - 1
        else:
            self.free &= ~(((1 << granules) - 1) << first)
        return first

    def give_back(self, first: int, granules: int) -> None:
        self.free |= ((1 << granules) - 1) << first
        self._longest = GRANULES


def first_run(bits: int, length: int) -> int:
    """Where the first `length` set bits in a row begin, or -1.

    >>> first_run(0b11101100, 3)
    5
    """
    have = 1  # a bit of `bits` says by now that so many bits are set from there on
    while have < length:
        step = min(have, length - have)
        bits &= bits >> step
        have += step
    return (bits & -bits).bit_length() - 1


class Slot:
    """A place for one secret: from `offset` of the memory of `pages`. `shared` is None for pages of its own."""

    __slots__ = ("granules", "offset", "pages", "shared")

    def __init__(self, pages: LockedPages, offset: int, granules: int = 0, shared: SharedPage | None = None) -> None:
        self.pages = pages
        self.offset = offset
        self.granules = granules
        self.shared = shared


class Pool:
    """Hands out slots and takes them back, from any thread, signal handler or finalizer."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = RLock()
        self._busy = False
        self._shared: list[SharedPage] = []
        self._given_back: deque[Slot] = deque()
        self.in_use: set[LockedPages] = set()
        """All that may hold a secret."""

    def take(self, size: int) -> Slot:
        """A slot of `size` bytes, all zero. Raises LockLimitReached, or OSError with what was attempted."""
        with self._lock:
            # The lock lets its own thread pass: a signal handler or finalizer may come in the midst of the lines
            # below. It must neither wait for what it interrupted nor meddle with it, and is given pages of its own.
            if self._busy:
                return self._own_pages(size)
            try:
                self._busy = True
                self._recycle()
                return self._own_pages(size) if size > LARGEST_SHARING else self._part_of_page(size)
            finally:
                self._busy = False

    def give_back(self, slot: Slot) -> None:
        """Take back a slot that its user has zeroed. Never waits."""
        self._given_back.append(slot)
        # If another thread has the lock it may have looked already: so look again once it is free.
        while self._given_back and not self._busy and self._lock.acquire(blocking=False):
            try:
                self._recycle_unless_busy()
            finally:
                self._lock.release()

    def wipe_at_exit(self) -> None:
        """Zero whatever is in use, and refuse its use from now on. Who still runs may have new slots."""
        in_use = self.in_use
        self._begin()
        for pages in list(in_use):
            pages.lost = "the interpreter is ending"
            pages.wipe()

    def lose_in_child(self) -> None:
        """In a forked child: what is in use is the parent's."""
        in_use = self.in_use
        self._begin()
        for pages in in_use:
            pages.lose_in_child()

    def _own_pages(self, size: int) -> Slot:
        """A slot that ends where the guard page begins: not a byte can be read or written beyond it."""
        pages = LockedPages(size)
        self.in_use.add(pages)
        return Slot(pages, PAGE_SIZE + pages.size - size)

    def _part_of_page(self, size: int) -> Slot:
        granules = max(1, -(-size // GRANULE))
        for page in self._shared:
            if (first := page.take(granules)) >= 0:
                break
        else:
            page = SharedPage()
            self.in_use.add(page.pages)
            self._shared.append(page)
            first = page.take(granules)
        return Slot(page.pages, PAGE_SIZE + first * GRANULE, granules, page)

    def _recycle_unless_busy(self) -> None:
        if self._busy:
            return
        try:
            self._busy = True
            self._recycle()
        finally:
            self._busy = False

    def _recycle(self) -> None:
        """Make the slots that were given back free. One empty page is kept, for the next secret."""
        while self._given_back:
            slot = self._given_back.popleft()
            if slot.pages not in self.in_use:  # of before the fork, or the exit
                continue
            page = slot.shared
            if page is None:
                self.in_use.discard(slot.pages)
                continue
            page.give_back((slot.offset - PAGE_SIZE) // GRANULE, slot.granules)
            if page.free == page.ALL and any(other.free == other.ALL for other in self._shared if other is not page):
                self._shared.remove(page)
                self.in_use.discard(page.pages)


POOL = Pool()
atexit.register(POOL.wipe_at_exit)
os.register_at_fork(after_in_child=POOL.lose_in_child)

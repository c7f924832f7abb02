# SPDX-License-Identifier: MIT
"""I/O that still refers to memory which is released: a program that ends must not write zeros to its disk.

What is in flight can't be counted: rings need not be mapped, requests may complete often or never, and those that
wait for a connection refer to no memory. But the pages themselves tell. I/O that goes straight from or to memory
(native AIO, io_uring with its registered buffers, direct reads and writes) pins them, and UFFDIO_MOVE refuses to move
a page that is pinned. So pages are moved to be wiped, and those that can't be are left until they can.
"""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence

from mlockwipe.linux import io_uring, procfs, userfaultfd
from mlockwipe.linux.arch import PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.mman import (
    MADV_DONTFORK,
    MADV_DONTNEED_LOCKED,
    MADV_POPULATE_WRITE,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MLOCK_ONFAULT,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_READ,
    PROT_WRITE,
)
from mlockwipe.linux.read_file import in_proc
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory.filters import OWN_MLOCK2
from mlockwipe.memory.keeper import Keeper, checked_result
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range, RangeSet

_PIECE = 4 << 20
_HUGE = 2 << 20
_THROUGH_WORKER = 1 << 20
PATIENCE = 5.0  # seconds
_LONGEST_SKIP = 64 * PAGE_SIZE
RING = "anon_inode:[io_uring]"
_AIO = "/[aio]"


class Sieve:
    """Wipes private anonymous memory, but for the pages that I/O refers to.

    A page that is pinned is one process's own (PageAnonExclusive). One that is not, for a fork has shared it, is
    refused as well (EBUSY; move_present_ptes in mm/userfaultfd.c, Linux 6.18), and so is written to before the second
    attempt.
    """

    def __init__(self, keeper: Keeper) -> None:
        """OSError where the kernel has no UFFDIO_MOVE (before Linux 6.8) or refuses a userfaultfd."""
        self._keeper = keeper
        self.room: Range | None = None  # a page for arguments, and where pages are moved to
        self._fd = self._call("userfaultfd", userfaultfd.FLAGS)
        room = self._map(PAGE_SIZE)
        try:
            self._ioctl(room, userfaultfd.API, userfaultfd.api())
        finally:
            self._unmap(room)

    def _call(self, name: str, *arguments: int) -> int:
        return call_in(self._keeper, name, *arguments)

    def _ioctl(self, room: Range, request: int, argument: bytes) -> None:
        os.pwrite(self._keeper.files.memory, argument, room[0])
        self._call("ioctl", self._fd, request, room[0])

    def _map(self, size: int) -> Range:
        protection, flags = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
        start = self._call("mmap", 0, size, protection, flags, 0xFFFFFFFF, 0)
        return start, start + size

    def _unmap(self, room: Range) -> None:
        self._call("munmap", room[0], room[1] - room[0])

    def open_room(self, length: int) -> Range:
        """Have a place where a range of `length` is moved to, or a part of it at a time.

        It is mapped only as long as it is of use: it counts for mlockall, and for the limits of the program.
        """
        size = PAGE_SIZE + (_PIECE + 2 * _HUGE if length >= _HUGE else length)
        if self.room is None or self.room[1] - self.room[0] < size:
            self.close_room()
            start, _ = self.room = self._map(size)
            registration = userfaultfd.registration(start + PAGE_SIZE, size - PAGE_SIZE)
            self._ioctl(self.room, userfaultfd.REGISTER, registration)
        return self.room

    def keep_room(self) -> None:
        """It is of use for longer: children shall not have it."""
        if self.room is not None:
            self._call("madvise", self.room[0], self.room[1] - self.room[0], MADV_DONTFORK)

    def close_room(self) -> None:
        if self.room is not None:
            self._unmap(self.room)
            self.room = None

    def shut(self, start: int, end: int) -> None:
        """From here on whoever touches what is not there waits until `let_in`; and I/O that begins fails.

        Where there is no page yet, they would find zeros. OSError for what is not private and anonymous, and where
        the program does the same itself.
        """
        assert self.room is not None
        self._ioctl(self.room, userfaultfd.REGISTER, userfaultfd.registration(start, end - start))

    def let_in(self, start: int, end: int, *, stays: bool) -> None:
        """`stays`: the mapping is the same that was shut."""
        if self.room is None:
            return
        for request in (userfaultfd.UNREGISTER,) * stays + (userfaultfd.WAKE,):
            with contextlib.suppress(OSError):
                self._ioctl(self.room, request, userfaultfd.place(start, end - start))

    def wipe(self, start: int, end: int) -> tuple[int, list[Range]]:
        """How many pages were wiped, and which ranges were left.

        The pages that were wiped are given back to the kernel; the mapping stays, and is writable. OSError when it is
        of no kind that UFFDIO_MOVE knows.
        """
        room = self.open_room(end - start)
        place = room[0] + PAGE_SIZE
        piece = min(room[1] - place, _PIECE)
        if end - start >= _HUGE:  # a huge page is moved as a whole, to a place that it fits in
            place = -(-place // _HUGE) * _HUGE + start % _HUGE
        pages = 0
        left: list[Range] = []
        for low in range(start, end, piece):
            high = min(low + piece, end)
            try:
                left += self._move(room, place, low, high)
            finally:
                for run in procfs.anonymous_pages(self._keeper.files.pagemap, place, place + high - low):
                    self._clear(*run)
                    pages += (run[1] - run[0]) // PAGE_SIZE
                self._call("madvise", place, high - low, MADV_DONTNEED_LOCKED)
        return pages, left

    def _move(self, room: Range, place: int, start: int, end: int) -> list[Range]:
        """Move what can be to `place`: the ranges that can't."""
        left: list[Range] = []
        at, step, written, attempts, unlocked = start, PAGE_SIZE, False, 0, False
        while at < end:
            request = userfaultfd.move(place + at - start, at, end - at)
            try:
                self._ioctl(room, userfaultfd.MOVE, request)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EEXIST) and at == start and not unlocked:
                    self._unlock(room, start, end)
                    unlocked = True
                    continue
                if error.errno not in (errno.EAGAIN, errno.EBUSY):
                    raise
            moved = userfaultfd.moved(self._keeper.files.memory, room[0])
            if moved > 0:
                at += moved
                step, attempts = PAGE_SIZE, 0
            elif moved == -errno.EAGAIN and attempts < 3:
                attempts += 1
            elif not written:
                with contextlib.suppress(OSError):
                    self._call("madvise", at, end - at, MADV_POPULATE_WRITE)
                written = True
            else:  # buffers are large: their pages are not looked at one by one
                left.append((at, min(at + step, end)))
                at += step
                step, attempts = min(2 * step, _LONGEST_SKIP), 0
        return left

    def _unlock(self, room: Range, start: int, end: int) -> None:
        """Have neither place locked, nor the room filled, as mlockall of what is there or will be does it."""
        size = room[1] - room[0]
        self._call("munlock", start, end - start)
        self._call("munlock", room[0], size)
        self._call("madvise", room[0], size, MADV_DONTNEED_LOCKED)

    def _clear(self, start: int, end: int) -> None:
        if end - start >= _THROUGH_WORKER:
            with contextlib.suppress(OSError, TaskGone):
                self._keeper.read_zeros(start, end)
                return
        while start < end:
            start += os.pwrite(self._keeper.files.memory, bytes(min(end - start, _THROUGH_WORKER)), start)


class Aside:
    """Pages that a call releases, moved out of its way to another place of the same memory, to wait for I/O there.

    What was mapped stays mapped, and empty, so that the call finds what it expects. `places`: start, end, and where
    that is. False where there is none.
    """

    def __init__(self, keeper: Keeper, sieve: Sieve) -> None:
        self._keeper = keeper
        self._sieve = sieve
        self._shut: list[Range] = []
        self._locked = RangeSet()
        self.places: list[tuple[int, int, int]] = []
        self.moved: list[Range] = []  # where all of it went at first

    def __bool__(self) -> bool:
        return bool(self.places)

    def move(self, runs: Sequence[Range], locked: RangeSet, *, shut: bool) -> None:
        """All of `runs`, each in one mapping, or nothing: OSError.

        `locked`: what the kernel holds to be locked. `shut`: nothing will be there after the call.
        """
        self._locked = locked
        try:
            for start, end in runs:
                # Of a mapping that is moved in part, mremap unlocks what stays, too (dontunmap_complete in
                # mm/mremap.c, Linux 6.18): first that part becomes a mapping of its own.
                self._call("munlock", start, end - start)
                if shut:
                    self._sieve.shut(start, end)
                    self._shut.append((start, end))
                flags = MREMAP_MAYMOVE | MREMAP_DONTUNMAP
                place = self._call("mremap", start, end - start, end - start, flags, 0)
                self.places.append((start, end, place))
                self.moved.append((place, place + end - start))
        except OSError:
            self._let_in(stays=True)
            for start, end in runs:
                self._lock(start, end)
            self.bring_back()
            raise

    def bring_back(self, low: int = 0, high: int = TASK_SIZE) -> None:
        """What came from [low, high), where something is still mapped: a call may fail half-way through."""
        kept = []
        for start, end, place in self.places:
            first, last = max(start, low), min(end, high)
            if first >= last:
                kept.append((start, end, place))
                continue
            back = RangeSet()
            for vma in procfs.vmas(self._keeper.files.maps, first, last):
                back.add(max(first, vma.start), min(last, vma.end))
            for at, until in back:
                flags = MREMAP_MAYMOVE | MREMAP_FIXED
                self._call("mremap", place + at - start, until - at, until - at, flags, at)
                self._lock(at, until)
            kept += [(at, until, place + at - start) for at, until in back.gaps(start, end)]
        self.places = kept

    def _lock(self, start: int, end: int) -> None:
        """Have it locked as it was, but that nothing is faulted in for it."""
        for low, high in self._locked.within(start, end):
            with contextlib.suppress(OSError):  # it may be unmapped by now
                self._call("mlock2", low, high - low, MLOCK_ONFAULT, OWN_MLOCK2)

    def _let_in(self, *, stays: bool) -> None:
        for start, end in self._shut:
            self._sieve.let_in(start, end, stays=stays)
        self._shut.clear()

    def discard(self) -> None:
        """The call is done, whatever came of it."""
        self._let_in(stays=True)

    def let_go(self, *, stays: bool) -> list[Range]:
        """Where the pages are now, ready to be wiped. `stays`: what they came from is still mapped, and locked."""
        self._let_in(stays=stays)
        for start, end, place in self.places:
            if not all(vma.writable for vma in procfs.vmas(self._keeper.files.maps, place, place + end - start)):
                with contextlib.suppress(OSError):
                    self._call("mprotect", place, end - start, PROT_READ | PROT_WRITE)
            if stays:
                self._lock(start, end)
        return [(place, place + end - start) for start, end, place in self.places]

    def _call(self, name: str, *arguments: int) -> int:
        return call_in(self._keeper, name, *arguments)


def call_in(keeper: Keeper, name: str, *arguments: int) -> int:
    """Have the worker of a keeper make a call. OSError also when the worker is dead."""
    try:
        return checked_result(keeper.worker.call(name, *arguments), name)
    except TaskGone:
        raise OSError(errno.ESRCH, f"{name}: its helper was killed") from None


def has_ring(tid: int) -> bool:
    """Whether a process has an io_uring among its descriptors."""
    return RING in _descriptors(tid).values()


def has_direct_file(tid: int) -> bool:
    """Whether a process has a file open that it reads or writes without the page cache."""
    for fd, link in _descriptors(tid).items():
        if link.startswith("/") and not link.startswith("/dev/pts/"):
            with (
                contextlib.suppress(OSError),
                open(f"{tid}/fdinfo/{fd}", encoding="utf-8", errors="replace", opener=in_proc) as info,
            ):
                if any(line.startswith("flags:") and int(line[6:], 8) & os.O_DIRECT for line in info):
                    return True
    return False


def _descriptors(tid: int) -> dict[int, str]:
    with contextlib.suppress(OSError):  # it is dying, or the kernel does not let us look
        return procfs.descriptors(tid)
    return {}


# Where the pages do not tell: before Linux 6.8, of private mappings of files, and without a worker


def end_in_flight(files: Files, call: Callable[[str, int], int]) -> None:
    """Wait for the I/O of a program that is dead, as far as its rings are mapped."""
    end_native(files, call)
    deadline = time.monotonic() + PATIENCE
    while any_in_flight(files) and time.monotonic() < deadline:
        time.sleep(0.001)


def end_native(files: Files, call: Callable[[str, int], int]) -> None:
    """Native AIO is ended when the last user of the memory goes (exit_aio in fs/aio.c), and the keeper is one: so
    io_destroy(2), which returns when all is done, is called on its rings by `call`, which has a task in there do it.
    """
    with contextlib.suppress(TaskGone, OSError):
        for vma in rings(files):
            if vma.name.startswith(_AIO):
                call("io_destroy", vma.start)


def any_in_flight(files: Files) -> bool:
    """Whether io_uring, which at exit cancels what it can and does not wait for the rest, has requests to complete:
    by the counters of the rings that are mapped."""
    return any(
        _requests_in_flight(files.memory, vma.start) for vma in rings(files) if vma.name == RING and vma.offset == 0
    )


def rings(files: Files) -> list[procfs.Vma]:
    """The rings of io_uring and native AIO that are mapped."""
    text = procfs.read_all(files.maps)
    if RING.encode() not in text and _AIO.encode() not in text:
        return []
    mappings = procfs.parse_maps(text.decode(errors="surrogateescape"))
    return [vma for vma in mappings if vma.name == RING or vma.name.startswith(_AIO)]


def _requests_in_flight(memory_fd: int, ring: int) -> int:
    """The requests of an io_uring that the kernel has taken and not completed; 0 when its ring can't be read, and 1
    when nobody knows how to read it.
    """
    try:
        at_taken, at_completed = io_uring.counters()
    except OSError:
        return 1
    try:
        taken, completed = (
            int.from_bytes(os.pread(memory_fd, 4, ring + at), sys.byteorder) for at in (at_taken, at_completed)
        )
    except OSError:
        return 0
    in_flight = (taken - completed) % (1 << 32)
    return in_flight if in_flight < 1 << 31 else 0  # more completions than requests: multishot

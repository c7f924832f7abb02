# SPDX-License-Identifier: MIT
"""`wrong_supervisors.py FAULT COMMAND ...`: `mlockwipe run` with one grave fault, made to be found out.

Those of FAULTS wipe what they should. What tells them from the right one is the harm that they do besides. Those of
LEAKS do no harm, and leave something.
"""

import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from mlockwipe.cli import main
from mlockwipe.linux import procfs
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.memory import wipe
from mlockwipe.memory.address_space import AddressSpace, Family
from mlockwipe.memory.calls import Call
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.mappings import KernelMappings
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range, RangeSet
from mlockwipe.memory.undo import Saved
from mlockwipe.tracing.task import Task
from mlockwipe.tracing.tracees import Tracees


def wipes_files() -> None:
    """Locked is locked: it zeroes pages of files too, and by that the files, however they are mapped."""
    right = wipe.sensitive_pages

    def sensitive_pages(files: Files, ranges: Iterable[Range]) -> Iterator[wipe.Run]:
        ranges = list(ranges)
        for vma, start, end in _mapped(files, ranges):
            # A file of a case and no other: after mlockall libraries are locked too, and they are this machine's.
            if fnmatchcase(vma.name, "*/mlockwipe-*/file"):
                _overwrite(vma.name, end - start, start - vma.start + vma.offset)
        yield from right(files, ranges)

    wipe.sensitive_pages = sensitive_pages


def wipes_shared_memory() -> None:
    """Locked is locked: it zeroes memory that others share, as if it were the program's alone."""
    right = wipe.sensitive_pages

    def sensitive_pages(files: Files, ranges: Iterable[Range]) -> Iterator[wipe.Run]:
        ranges = list(ranges)
        for vma, start, end in _mapped(files, ranges):
            if vma.shared and vma.writable and vma.name.endswith("(deleted)"):  # it has never had a name on a disk
                yield vma, (start, end)
        yield from right(files, ranges)

    wipe.sensitive_pages = sensitive_pages


def wipes_before_it_is_sure() -> None:
    """A call that will release memory is about to: it wipes, and when the call fails it is too late."""

    def save(self: Saved, ranges: Sequence[Range]) -> None:
        pass

    Saved.save = save  # type: ignore[method-assign]
    KernelMappings.refuse_unmap = lambda self, parts: False  # type: ignore[method-assign]


def wipes_when_the_first_leaves() -> None:
    """A task that ends, or becomes another program, releases its memory: whoever else still runs in it."""
    right = Tracees._forget

    def forget(self: Tracees, tid: int) -> Task | None:
        task = right(self, tid)
        if task is not None and task.space.tids:
            _wipe_all(task.space)
        return task

    Tracees._forget = forget  # type: ignore[method-assign]


def wipes_frames() -> None:
    """A page is a page frame: it is zeroed when one of those who map it goes, and so for all of them.

    As a kernel would that clears what is unmapped before it has looked whether that was the last mapping.
    """
    members: weakref.WeakKeyDictionary[Family, weakref.WeakSet[AddressSpace]] = weakref.WeakKeyDictionary()
    begin: Callable[[AddressSpace, Family | None], None] = AddressSpace.__init__
    right = AddressSpace.wipe

    def init(self: AddressSpace, family: Family | None = None) -> None:
        begin(self, family)
        members.setdefault(self.family, weakref.WeakSet()).add(self)

    def wipe_frames(self: AddressSpace, ranges: RangeSet, journal: Journal, *, patient: bool = True) -> int:
        for start, end in list(ranges) if self.held else []:
            for page in range(start, min(end, start + (1 << 24)), PAGE_SIZE):
                for other in members[self.family]:
                    if other is not self and other.held and _frame(other, page) == _frame(self, page) != 0:
                        os.pwrite(other.held.files.memory, bytes(PAGE_SIZE), page)
        return right(self, ranges, journal, patient=patient)

    AddressSpace.__init__ = init  # type: ignore[method-assign]
    AddressSpace.wipe = wipe_frames  # type: ignore[method-assign]


def forgets_mremap() -> None:
    """It knows of every call that releases memory but one."""
    _releases_nothing("mremap")


def forgets_advice() -> None:
    """What MADV_DONTNEED_LOCKED drops is gone, it thinks."""
    _releases_nothing("madvise")


def _releases_nothing(name: str) -> None:
    right = AddressSpace.released

    def released(self: AddressSpace, call: Call, tid: int) -> list[Range]:
        return [] if call.name == name else right(self, call, tid)

    AddressSpace.released = released  # type: ignore[method-assign]


def _mapped(files: Files, ranges: Iterable[Range]) -> Iterator[tuple[procfs.Vma, int, int]]:
    for start, end in ranges:
        for vma in procfs.vmas(files.maps, start, end):
            yield vma, max(start, vma.start), min(end, vma.end)


def _overwrite(path: str, length: int, offset: int) -> None:
    file = os.open(path, os.O_WRONLY)
    os.pwrite(file, bytes(length), offset)
    os.close(file)


def _wipe_all(space: AddressSpace) -> None:
    if held := space.held:
        runs = wipe.sensitive_pages(held.files, space.sensitive.ranges)
        wipe.clear_by_writing(held.files, [run for _, run in runs])


def _frame(space: AddressSpace, address: int) -> int:
    """The page frame number at an address, 0 when no page is there (Documentation/admin-guide/mm/pagemap.rst)."""
    assert space.held is not None
    entry = int.from_bytes(os.pread(space.held.files.pagemap, 8, address // PAGE_SIZE * 8), "little")
    return entry & ((1 << 55) - 1) if entry >> 63 else 0


FAULTS = {
    fault.__name__: fault
    for fault in (
        wipes_files,
        wipes_shared_memory,
        wipes_before_it_is_sure,
        wipes_when_the_first_leaves,
        wipes_frames,
    )
}
LEAKS = {fault.__name__: fault for fault in (forgets_mremap, forgets_advice)}


def prefix(fault: str) -> tuple[str, ...]:
    """What a command runs under, to run under the supervisor with this fault."""
    return (sys.executable, "-P", os.path.abspath(__file__), fault)


if __name__ == "__main__":
    (FAULTS | LEAKS)[sys.argv[1]]()
    sys.exit(main(["run", "--quiet", "--", *sys.argv[2:]]))

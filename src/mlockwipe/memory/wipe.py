# SPDX-License-Identifier: MIT
"""Overwriting released pages: which of them, and by which hand.

Only resident anonymous pages of private mappings are written. File pages, shared memory, device memory and the zero
page are not, and nothing is faulted in to be wiped.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence

from mlockwipe.linux import procfs
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.linux.mman import MADV_DONTNEED_LOCKED, PROT_READ, PROT_WRITE
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range

# From this size on the kernel clears faster in the worker's own context, by read(2) of /dev/zero, than through
# /proc/PID/mem, where every page is looked up and mapped for the copy.
_THROUGH_WORKER = 1 << 20
_CHUNK = 1 << 20
_PIECE = 4 << 20
_zeros = memoryview(bytes(_CHUNK))

Run = tuple[procfs.Vma, Range]  # resident anonymous pages, and the mapping that they lie in


def sensitive_pages(files: Files, ranges: Iterable[Range]) -> Iterator[Run]:
    """The runs of resident anonymous pages in `ranges`, each with the private mapping it lies in."""
    devices: set[int] | None = None
    for start, end in ranges:
        for vma in procfs.vmas(files.maps, start, end):
            if vma.shared or vma.name.startswith(("[vvar", "[vdso", "[vsyscall")):
                continue
            pages, protected = procfs.resident(files.pagemap, max(start, vma.start), min(end, vma.end))
            if not pages:
                continue
            vma.protected = bool(protected)
            if vma.inode:
                # Pages of a device that was mapped MAP_PRIVATE have no struct page and so look anonymous.
                if devices is None:
                    devices = _device_mappings(files)
                if vma.start in devices:
                    continue
            for run in pages:
                yield vma, run


def _device_mappings(files: Files) -> set[int]:
    if files.smaps == -1:
        return set()
    return {vma.start for vma, flags in procfs.flagged_vmas(files.smaps) if flags & {"io", "pf", "mm"}}


def clear(keeper: Keeper, runs: Sequence[Run], *, dying: bool, shared: bool = False) -> int:
    """Zero runs of sensitive pages and return the number of pages.

    `dying`: no task of the program uses the memory any more, so its protection may be changed on the way. `shared`:
    relatives may have the same pages, and each that they have is copied before it is written to, so dying memory is
    given back piece by piece, or there would be twice as much of it.
    OSError when a page that is still mapped can't be written.
    """
    if dying and shared and sum(end - start for _, (start, end) in runs) > _PIECE:
        return _clear_piece_by_piece(keeper, runs)
    large = [run for run in runs if run[1][1] - run[1][0] >= _THROUGH_WORKER and (dying or run[0].writable)]
    done: set[Range] = set()
    with contextlib.suppress(TaskGone):
        for vma, run in large:
            if _read_zeros(keeper, vma, run):
                done.add(run)
    return sum((end - start) // PAGE_SIZE for start, end in done) + clear_by_writing(
        keeper.files, [run for _, run in runs if run not in done]
    )


def _clear_piece_by_piece(keeper: Keeper, runs: Sequence[Run]) -> int:
    # Whoever has a userfaultfd may be notified of what is given back, and the call waits until that was read.
    watched = {vma.start for vma, flags in procfs.flagged_vmas(keeper.files.smaps) if flags & {"um", "uw", "ui"}}
    pages = 0
    for vma, (start, end) in runs:
        for at in range(start, end, _PIECE):
            piece = at, min(at + _PIECE, end)
            pages += clear(keeper, [(vma, piece)], dying=True)
            if vma.start not in watched:
                with contextlib.suppress(TaskGone):
                    keeper.worker.call("madvise", at, piece[1] - at, MADV_DONTNEED_LOCKED)
    return pages


def clear_by_writing(files: Files, runs: Sequence[Range]) -> int:
    """As `clear`, through /proc/PID/mem alone: the number of pages."""
    for run in runs:
        _write_zeros(files, run)
    return sum((end - start) // PAGE_SIZE for start, end in runs)


def _read_zeros(keeper: Keeper, vma: procfs.Vma, run: Range) -> bool:
    start, end = run
    if not vma.writable and keeper.worker.call("mprotect", start, end - start, PROT_READ | PROT_WRITE) < 0:
        return False  # sealed by mseal(2)
    try:
        keeper.read_zeros(start, end)
    except OSError:
        return False
    return True


def _write_zeros(files: Files, run: Range) -> None:
    start, end = run
    while start < end:
        try:
            start += os.pwrite(files.memory, _zeros[: min(end - start, _CHUNK)], start)
        except OSError as error:
            # unmapped meanwhile by another thread of the program, whose own call was trapped and wiped
            if error.errno != errno.EIO or next(procfs.vmas(files.maps, start, start + PAGE_SIZE), None):
                raise
            start += PAGE_SIZE

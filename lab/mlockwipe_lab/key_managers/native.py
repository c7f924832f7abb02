# SPDX-License-Identifier: MIT
"""Looking without a virtual machine: the memory of the living processes of a key manager, and nothing else."""

import array
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from mlockwipe.linux import procfs
from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe_lab.key_managers import Needle
from mlockwipe_lab.key_managers.processes import descendants

# an entry of pagemap (Documentation/admin-guide/mm/pagemap.rst)
_PRESENT, _FRAME = 1 << 63, (1 << 55) - 1


def look(needles: Sequence[Needle]) -> dict[str, list[int]]:
    """The physical addresses of the needles in the processes that descend from this one."""
    found: dict[str, set[int]] = {needle.label: set() for needle in needles}
    for pid in descendants():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            _search(pid, needles, found)
    return {label: sorted(addresses) for label, addresses in found.items()}


def _search(pid: int, needles: Sequence[Needle], found: dict[str, set[int]]) -> None:
    memory, pagemap = (os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("mem", "pagemap"))
    try:
        for vma in procfs.parse_maps(Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape")):
            for address, frames in _resident(pagemap, vma.start, vma.end):
                with suppress(OSError):  # [vvar] and its like
                    data = os.pread(memory, len(frames) * PAGE_SIZE, address)
                    for needle in needles:
                        for at in _all(data, needle.data):
                            frame = frames[at // PAGE_SIZE]
                            found[needle.label].add(frame * PAGE_SIZE + at % PAGE_SIZE)
    finally:
        os.close(memory)
        os.close(pagemap)


def _resident(pagemap: int, start: int, end: int) -> Iterator[tuple[int, list[int]]]:
    """Runs of pages that are in memory: the address of the first, and their frames. Looking brings in no other."""
    if end >> 47:  # [vsyscall], above user space
        return
    entries = array.array("Q", os.pread(pagemap, (end - start) // PAGE_SIZE * 8, start // PAGE_SIZE * 8))
    for present, run in groupby(enumerate(entries), lambda item: item[1] >= _PRESENT):
        if present:
            pages = list(run)
            yield start + pages[0][0] * PAGE_SIZE, [entry & _FRAME for _, entry in pages]


def _all(data: bytes, needle: bytes) -> Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)

# SPDX-License-Identifier: MIT
"""How much of some memory is not clear, counted without keeping any of it."""

import ctypes
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from mlockwipe.linux import mm
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.memory import wipe
from mlockwipe.memory.calls import page_up
from mlockwipe.memory.proc_files import Files
from mlockwipe.memory.ranges import Range

_CHUNK = 16 * PAGE_SIZE
_ZEROS = bytes(_CHUNK)
_SAMPLE = 1 << 20  # bytes of which the entropy is taken
# The one place that program memory is read into. It is cleared after each read, and this process can't be dumped.
_room = bytearray(_CHUNK)
with suppress(OSError):  # where the limit leaves no room for it
    mm.mlock(ctypes.addressof(ctypes.c_char.from_buffer(_room)), _CHUNK)
_view = memoryview(_room)


@dataclass(frozen=True)
class Content:
    """`pages`: those with anything in them. `bytes`: those that are not zero. `entropy`: of these, in bits a byte,
    taken over the first MiB; English text has about 4, keys and ciphertext 8 (less for less than 256 bytes)."""

    pages: int
    bytes: int
    entropy: float

    @property
    def clear(self) -> bool:
        return self.bytes == 0


def content(files: Files, ranges: Iterable[Range]) -> Content:
    """What `ranges`, of single bytes, hold in resident anonymous pages. Raises OSError when they can't be read."""
    pages = in_use = sampled = 0
    histogram = [0] * 256
    for first, last in ranges:
        for _, (start, end) in wipe.sensitive_pages(files, [(first & -PAGE_SIZE, page_up(last))]):
            for address in range(start, end, _CHUNK):
                size = min(_CHUNK, end - address)
                low, high = max(0, first - address), min(size, last - address)
                try:
                    os.preadv(files.memory, [_view[low:high]], address + low)
                    found = size - _room.count(0, 0, size)
                    if found:
                        in_use += found
                        pages += sum(
                            _room.count(0, at, at + PAGE_SIZE) < PAGE_SIZE for at in range(0, size, PAGE_SIZE)
                        )
                        if sampled < _SAMPLE:
                            sampled += size
                            for value in range(1, 256):
                                histogram[value] += _room.count(value, 0, size)
                finally:
                    _room[:] = _ZEROS
    found_in_all = Content(pages, in_use, _entropy(histogram))
    histogram[:] = [0] * 256  # of a short secret it says much
    return found_in_all


def _entropy(histogram: list[int]) -> float:
    total = sum(histogram)
    return abs(round(-sum(n / total * math.log2(n / total) for n in histogram if n), 2)) if total else 0.0

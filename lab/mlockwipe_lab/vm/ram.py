# SPDX-License-Identifier: MIT
"""The memory of a virtual machine, searched from outside.

The machine's RAM is a file that QEMU maps shared, so it is searched in place, without a copy. The machine has
less RAM than fits below the hole for devices at the end of the first 4 GiB (2 GiB on QEMU's q35:
hw/i386/pc_q35.c), so an offset in the file is a physical address of the guest.
"""

import ctypes
import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlockwipe.linux import mm, mman
from mlockwipe.linux.libc import function
from mlockwipe.linux.mm import PAGE_SIZE

_PART = 32 << 20  # bytes
_BLOCK = 128  # bytes: what mlockwipe.contract.pattern paints repeats after so many
SMALLEST_NEEDLE = 8  # bytes: shorter ones turn up by chance


_memmem = function(
    "memmem", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, sleeps=True
)


def _following(first: bytes, block: bytes) -> Iterator[bytes]:
    at = block.find(first)
    while at >= 0:
        yield (block + block)[at + 8 : at + 16]
        at = block.find(first, at + 1)


class Ram:
    """`path`: the file. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size
        self._start = mm.mmap(0, self._size, mman.PROT_READ, mman.MAP_SHARED, self._fd)

    def close(self) -> None:
        mm.munmap(self._start, self._size)
        os.close(self._fd)

    @property
    def touched(self) -> int:
        """How many bytes the guest has touched so far, in whole blocks of the file."""
        return sum(end - start for start, end in self._data())

    def find(self, needle: bytes) -> Iterator[int]:
        """The physical address of every place where `needle` stands, also across page boundaries.

        The machine must be stopped, or what moves meanwhile may be missed.
        """
        if len(needle) < SMALLEST_NEEDLE:
            raise ValueError(f"a needle of {len(needle)} bytes is too short: {SMALLEST_NEEDLE} at least")
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the machine stands still: all processors are ours
            for found in pool.map(lambda part: self._find(needle, *part), list(self._parts(len(needle)))):
                yield from found

    def _find(self, needle: bytes, start: int, end: int) -> list[int]:
        places = []
        while found := _memmem(self._start + start, end - start, needle, len(needle)):
            start = found - self._start + 1
            places.append(start - 1)
        return places

    def _parts(self, length: int) -> Iterator[tuple[int, int]]:
        """The data in parts that can be searched at the same time; a needle of `length` bytes is whole in one."""
        for start, end in self._data():
            for at in range(start, end, _PART):
                yield at, min(at + _PART + length - 1, end)

    def pairs(self, first: int, seconds: Sequence[int]) -> dict[int, dict[int, int]]:
        """Where the 64-bit word `first` is followed by one of `seconds`: {second: {page: pairs in it}}.

        A page is a number: its physical address / PAGE_SIZE. Words are little-endian.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = pool.map(lambda part: self._followers(first.to_bytes(8, "little"), *part), list(self._parts(8)))
            followers = Counter[tuple[bytes, int]]()
            for part in parts:
                followers.update(part)
        found: dict[int, dict[int, int]] = {second: {} for second in seconds}
        for (word, page), times in followers.items():
            second = int.from_bytes(word, "little")
            if second in found:
                found[second][page] = times
        return found

    def _followers(self, first: bytes, start: int, end: int) -> Counter[tuple[bytes, int]]:
        """How often each word follows `first` in each page of [start, end)."""
        followers = Counter[tuple[bytes, int]]()
        while start < end and (found := _memmem(self._start + start, end - start, first, 8)):
            at = found - self._start
            start = at + 1
            if at % PAGE_SIZE == 0 and at + PAGE_SIZE <= self._size:
                # As a rule a whole page that was painted, now or long ago: one block again and again.
                page = ctypes.string_at(found, PAGE_SIZE)
                block = page[:_BLOCK]
                if block * (PAGE_SIZE // _BLOCK) == page:
                    for word, times in Counter(_following(first, block)).items():
                        followers[word, at // PAGE_SIZE] = times * (PAGE_SIZE // _BLOCK)
                    start = at + PAGE_SIZE
                    continue
            if at + 16 <= self._size:
                followers[ctypes.string_at(found + 8, 8), at // PAGE_SIZE] += 1
        return followers

    def _data(self) -> Iterator[tuple[int, int]]:
        """The parts of the file that were ever written: what a guest has not touched is a hole."""
        end = 0
        while end < self._size:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            end = os.lseek(self._fd, start, os.SEEK_HOLE)
            yield start, end

# SPDX-License-Identifier: MIT
"""What must survive the supervisor: the ranges of every keeper, and content saved for calls that may fail.

Both lie in memory that the supervisor shares with its parent, the guardian. When the supervisor is killed the
guardian finds here what is still to be wiped, and clears what was saved.
"""

import ctypes
import mmap
import struct
import sys

from mlockwipe.linux.arch import PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.libc import function
from mlockwipe.linux.mman import MADV_DONTDUMP, MADV_REMOVE, MAP_NORESERVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mlockwipe.memory.ranges import Range, RangeSet

_SLOTS = 1024
_SLOT_SIZE = 4096
_BANKS = 16  # where they begin: two, after the header
_BANK_SIZE = (_SLOT_SIZE - _BANKS) // 2
_BANK_RANGES = (_BANK_SIZE - 8) // 16
_HEADER = struct.Struct("=QB")  # keeper, current bank
_BANK_OFFSET = 8
_END = struct.Struct("=ii")  # of the program: status and si_code, which is never 0; behind the slots

_SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE
_mlock = function("mlock", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_munlock = function("munlock", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)


class Journal:
    """A table of keepers: pid, and the sensitive ranges.

    A range list is written to the bank that is not current, then the bank byte is switched: a supervisor that is
    killed in between leaves a whole old list, never a torn one.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLOTS * _SLOT_SIZE + _END.size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        self._free = list(range(_SLOTS - 1, -1, -1))

    def open(self, keeper: int, ranges: "RangeSet") -> int | None:
        """Take a slot, or None when all are taken."""
        if not self._free:
            return None
        slot = self._free.pop()
        offset = slot * _SLOT_SIZE
        self._memory[offset + _BANK_OFFSET] = 0
        self.write(slot, ranges)
        struct.pack_into("=Q", self._memory, offset, keeper)  # last: this makes the slot count
        return slot

    def write(self, slot: int, ranges: "RangeSet") -> None:
        offset = slot * _SLOT_SIZE
        bank = 1 - self._memory[offset + _BANK_OFFSET]
        base = offset + _BANKS + bank * _BANK_SIZE
        bounds = [bound for one in ranges for bound in one]
        if len(bounds) > 2 * _BANK_RANGES:
            bounds = [0, TASK_SIZE]  # too many to list: the whole of a dead program's anonymous memory instead
        struct.pack_into(f"=Q{len(bounds)}Q", self._memory, base, len(bounds), *bounds)
        self._memory[offset + _BANK_OFFSET] = bank

    def close(self, slot: int) -> None:
        struct.pack_into("=Q", self._memory, slot * _SLOT_SIZE, 0)
        self._free.append(slot)

    def entries(self) -> "dict[int, list[Range]]":
        """The ranges of every keeper."""
        found = {}
        for slot in range(_SLOTS):
            keeper, bank = _HEADER.unpack_from(self._memory, slot * _SLOT_SIZE)
            if keeper:
                base = slot * _SLOT_SIZE + _BANKS + bank * _BANK_SIZE
                (count,) = struct.unpack_from("=Q", self._memory, base)
                bounds = struct.unpack_from(f"={count}Q", self._memory, base + 8)
                found[keeper] = list(zip(bounds[::2], bounds[1::2], strict=True))
        return found

    def note_end(self, status: int, code: int) -> None:
        """How the program has ended, before it is reaped, which can be done once only."""
        _END.pack_into(self._memory, _SLOTS * _SLOT_SIZE, status, code)

    def program_end(self) -> tuple[int, int] | None:
        """Status and si_code of the program's end, if it has ended."""
        status, code = _END.unpack_from(self._memory, _SLOTS * _SLOT_SIZE)
        return (status, code) if code else None

    def clear(self) -> None:
        """Forget everything: the guardian has dealt with it."""
        self._memory[:] = bytes(len(self._memory))
        self._free = list(range(_SLOTS - 1, -1, -1))


class SaveArea:
    """Room for the content of pages that are wiped before a call of which nobody can say yet whether it succeeds.

    It takes memory where it is used, and keeps no more than _KEPT of that. `size`: how much there is, less than SIZE
    where so much address space can't be had (RLIMIT_AS, vm.overcommit_memory=2).
    """

    SIZE = 256 << 20
    _KEPT = 16 << 20
    _LEAST = 1 << 20

    def __init__(self) -> None:
        self.size = self.SIZE
        while True:
            try:
                self._memory = mmap.mmap(-1, PAGE_SIZE + self.size, flags=_SHARED)
                break
            except OSError:
                if self.size == self._LEAST:
                    raise
                self.size //= 16
        self._memory.madvise(MADV_DONTDUMP)
        self._view = memoryview(self._memory)[PAGE_SIZE:]
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + PAGE_SIZE
        self._top = 0
        self._locked = 0
        self._taken: dict[int, int] = {}  # offset: length

    @property
    def _used(self) -> int:
        """So far it may have content; in the first page, for whoever clears it when the owner has died."""
        return int.from_bytes(self._memory[:8], sys.byteorder)

    @_used.setter
    def _used(self, end: int) -> None:
        self._memory[:8] = end.to_bytes(8, sys.byteorder)

    def take(self, length: int) -> memoryview | None:
        """Room for `length` bytes, or None when there is not so much left."""
        if self._top + length > self.size:
            return None
        offset = self._top
        self._top += length
        if self._top > self._used:
            self._used = self._top
        if self._top > self._locked and _mlock(self._address + offset, length) == 0:
            self._locked = self._top  # beyond RLIMIT_MEMLOCK it stays unlocked: better saved than lost
        self._taken[offset] = length
        return self._view[offset : offset + length]

    def give_back(self, room: memoryview) -> None:
        """Clear the room and take it back."""
        offset = ctypes.addressof(ctypes.c_char.from_buffer(room)) - self._address
        ctypes.memset(self._address + offset, 0, len(room))
        del self._taken[offset]
        self._top = max((start + length for start, length in self._taken.items()), default=0)
        if self._used > self._KEPT >= self._top:
            _munlock(self._address + self._KEPT, self._used - self._KEPT)
            self._memory.madvise(MADV_REMOVE, PAGE_SIZE + self._KEPT, self._used - self._KEPT)
            self._used = self._KEPT
            self._locked = min(self._locked, self._KEPT)

    def clear(self) -> None:
        """Clear it all: its owner died."""
        ctypes.memset(self._address, 0, self._used)

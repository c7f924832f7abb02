# SPDX-License-Identifier: MIT
"""System calls as the supervisor sees them: decoded, whatever ABI they came in, and what each would release."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterable

from mlockwipe.linux import shm
from mlockwipe.linux.arch import ABIS, PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_LOCKED,
    MREMAP_FIXED,
)
from mlockwipe.linux.read_file import in_proc
from mlockwipe.memory.filters import RELEASING_ADVICE
from mlockwipe.memory.ranges import Range
from mlockwipe.suppress import suppress

Mapped = Callable[[int, int], Iterable[Range]]  # the parts of [start, end) where anything is mapped
LOCKS = frozenset(("mlock", "mlock2", "mlockall"))


class Call:
    """A system call by name, with its arguments in the order of its manual page."""

    __slots__ = ("arguments", "name")

    def __init__(self, name: str, arguments: tuple[int, ...]) -> None:
        self.name = name
        self.arguments = arguments

    @property
    def locks(self) -> bool:
        """Whether it locks memory if it succeeds."""
        return self.name in LOCKS or (self.name == "mmap" and self.arguments[3] & MAP_LOCKED != 0)

    def succeeds(self, result: int) -> bool:
        """Whether it has, by what it returned. brk(2) returns the break that there is."""
        return result == self.arguments[0] if self.name == "brk" else not -4096 < result < 0


def decode(audit_arch: int, number: int, arguments: tuple[int, ...], memory_fd: int) -> Call:
    """The call behind a number. i386's multiplexed and in-memory forms are unfolded.

    KeyError for a call that the supervisor has no business with.
    """
    abi = ABIS[audit_arch]
    name = abi.name(number)
    if abi.word == 4:
        arguments = tuple(value & abi.address_mask for value in arguments)
    if name == "old_mmap":
        block = b""
        with suppress(OSError):  # the call will fail with EFAULT
            block = os.pread(memory_fd, 24, arguments[0])
        return Call("mmap", struct.unpack("=6I", block) if len(block) == 24 else (0,) * 6)
    if name == "ipc":
        if arguments[0] & 0xFFFF != shm.IPC_SHMAT:
            raise KeyError(name)
        return Call("shmat", (arguments[1], arguments[4], arguments[2]))
    return Call(name, arguments)


def page_up(value: int) -> int:
    return (value + PAGE_SIZE - 1) & -PAGE_SIZE


def span(address: int, length: int) -> Range:
    """The pages that [address, address + length) touches."""
    return address & -PAGE_SIZE, min(page_up(address + length), TASK_SIZE)


def _pages(address: int, length: int) -> list[Range]:
    """As `span`, but nothing for arguments that the kernel refuses: unaligned or beyond user space."""
    if address % PAGE_SIZE or not 0 < length <= TASK_SIZE - address:
        return []
    return [(address, page_up(address + length))]


def released(call: Call, program_break: int, memory_fd: int, tid: int, mapped: Mapped) -> list[Range]:
    """The ranges whose pages a call gives back to the kernel if it succeeds."""
    arguments = call.arguments
    match call.name:
        case "munmap":
            return _pages(arguments[0], arguments[1])
        case "mmap":
            if arguments[3] & MAP_FIXED and not arguments[3] & MAP_FIXED_NOREPLACE:
                return _pages(arguments[0], arguments[1])
        case "mremap":
            return _released_by_mremap(arguments, mapped)
        case "brk":
            low, high = page_up(arguments[0]), page_up(program_break)
            if arguments[0] and low < high:
                return [(low, high)]
        case "madvise":
            if arguments[2] in RELEASING_ADVICE:
                return _pages(arguments[0], arguments[1])
        case "process_madvise":
            if arguments[3] in RELEASING_ADVICE and _names(arguments[0], tid):
                named = vector(memory_fd, arguments[1], arguments[2])
                return [pages for base, length in named for pages in _pages(base, length)]
        case "shmat":
            if arguments[2] & shm.SHM_REMAP:
                return _pages(arguments[1], shm.segment_size(arguments[0]))
    return []


def refuses_locked(call: Call) -> bool:
    """Whether a call would release memory, but fails where that is locked (madvise_dontneed_free in mm/madvise.c)."""
    match call.name:
        case "madvise":
            return call.arguments[2] in (MADV_DONTNEED, MADV_FREE)
        case "process_madvise":
            return call.arguments[3] in (MADV_DONTNEED, MADV_FREE)
    return False


def _released_by_mremap(arguments: tuple[int, ...], mapped: Mapped) -> list[Range]:
    old, old_length, new_length, flags, new = arguments[:5]
    found: list[Range] = []
    if old % PAGE_SIZE:
        return found
    if page_up(new_length) < page_up(old_length):
        found += _pages(old + page_up(new_length), page_up(old_length) - page_up(new_length))
    if flags & MREMAP_FIXED:
        place = _pages(new, new_length)
        if place and page_up(new_length) == page_up(old_length):
            # What lies under a hole of the source stays (Linux 6.17; before, a source with holes was refused).
            parts = mapped(*span(old, old_length))
            place = [(start - old + new, end - old + new) for start, end in parts] or place
        found += place
    return found


def _names(pidfd: int, tid: int) -> bool:
    """Whether a descriptor of task `tid` is a pidfd of its own process."""
    pidfd = ctypes.c_int(pidfd & 0xFFFFFFFF).value
    if pidfd < 0:
        return True  # PIDFD_SELF and PIDFD_SELF_THREAD (Linux 6.14)
    try:
        with open(f"{tid}/fdinfo/{pidfd}", encoding="ascii", opener=in_proc) as info:
            fields = dict(line.split(":", 1) for line in info)
        with open(f"{tid}/status", encoding="utf-8", errors="replace", opener=in_proc) as status:
            tgid = next(line.split()[1] for line in status if line.startswith("Tgid:"))
        return fields.get("Pid", "").strip() == tgid
    except OSError:
        return False


def vector(memory_fd: int, address: int, count: int) -> list[tuple[int, int]]:
    """Base and length of each of so many struct iovec at an address; none where that can't be read."""
    if memory_fd == -1 or not 0 <= address < TASK_SIZE:
        return []
    try:
        block = os.pread(memory_fd, 16 * min(count, 1024), address)
    except OSError:  # the call will fail with EFAULT
        return []
    whole = block[: len(block) // 16 * 16]
    return list(struct.iter_unpack("=QQ", whole))

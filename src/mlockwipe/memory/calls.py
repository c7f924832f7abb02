# SPDX-License-Identifier: MIT
"""System calls as the supervisor sees them: decoded, whatever ABI they came in, and what each would release."""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Container, Iterable

from mlockwipe.linux import shm
from mlockwipe.linux.arch import ABIS, PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_GUARD_INSTALL,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_LOCKED,
    MREMAP_FIXED,
)
from mlockwipe.linux.read_file import in_proc
from mlockwipe.linux.userfaultfd import MOVE, MOVE_ARGUMENT
from mlockwipe.memory.filters import RELEASING_ADVICE
from mlockwipe.memory.ranges import Range
from mlockwipe.suppress import suppress

Mapped = Callable[[int, int], Iterable[Range]]  # the parts of [start, end) where anything is mapped
_WORD = 1 << 64
LOCKS = frozenset(("mlock", "mlock2", "mlockall"))

_REFUSED_BY_LOCKED = (MADV_DONTNEED, MADV_FREE, MADV_GUARD_INSTALL)

# The arguments that the kernel's prototype calls int: it ignores the upper half of their registers.
_INTS = {
    "ioctl": (1,),
    "x32_ioctl": (1,),
    "madvise": (2,),
    "mlock2": (2,),
    "mlockall": (0,),
    "prctl": (0,),
    "process_madvise": (0, 3),
    "seccomp": (0, 1),
    "shmat": (0, 2),
}


class Call:
    """A system call by name, with its arguments in the order of its manual page.

    `word`: the size of a pointer in the structures that they point at.
    """

    __slots__ = ("arguments", "name", "word")

    def __init__(self, name: str, arguments: tuple[int, ...], word: int = 8) -> None:
        self.name = name
        self.arguments = arguments
        self.word = word

    @property
    def locks(self) -> bool:
        """Whether it locks memory if it succeeds."""
        return self.name in LOCKS or (self.name == "mmap" and self.arguments[3] & MAP_LOCKED != 0)

    def succeeds(self, result: int) -> bool:
        """Whether it has, by what it returned. brk returns the break that there is; UFFDIO_MOVE may do a part."""
        if self.name == "brk":
            return result == self.arguments[0]
        return not -4096 < result < 0 or (self.name == "uffdio_move" and result == -errno.EAGAIN)


def decode(audit_arch: int, number: int, arguments: tuple[int, ...], memory_fd: int) -> Call:
    """The call behind a number. i386's multiplexed and in-memory forms are unfolded.

    KeyError for a call that the supervisor has no business with.
    """
    abi = ABIS[audit_arch]
    name = abi.name(number)
    if abi.word == 4:
        arguments = tuple(value & abi.address_mask for value in arguments)
    elif name in _INTS:
        ints = _INTS[name]
        arguments = tuple(value & 0xFFFFFFFF if i in ints else value for i, value in enumerate(arguments))
    if name == "old_mmap":
        block = read_memory(memory_fd, arguments[0], 24)
        return Call("mmap", struct.unpack("=6I", block) if len(block) == 24 else (0,) * 6)
    if name in ("ioctl", "x32_ioctl"):
        if arguments[1] != MOVE:
            raise KeyError(name)
        block = read_memory(memory_fd, arguments[2], MOVE_ARGUMENT.size)
        return Call("uffdio_move", MOVE_ARGUMENT.unpack(block) if len(block) == MOVE_ARGUMENT.size else (0,) * 5)
    if name == "ipc":
        if arguments[0] & 0xFFFF != shm.IPC_SHMAT:
            raise KeyError(name)
        return Call("shmat", (arguments[1], arguments[4], arguments[2]))
    return Call(name, arguments, abi.word_in_memory(number))


def read_memory(memory_fd: int, address: int, size: int) -> bytes:
    """What a call's argument points at; less where it can't be read, and the call will fail with EFAULT."""
    if memory_fd == -1 or not 0 <= address < TASK_SIZE:
        return b""
    try:
        return os.pread(memory_fd, size, address)
    except OSError:
        return b""


def page_up(value: int) -> int:
    return (value + PAGE_SIZE - 1) & -PAGE_SIZE


def span(address: int, length: int) -> Range:
    """The pages that [address, address + length) touches, none where the kernel's sum of 64 bits overflows."""
    start = address & -PAGE_SIZE
    end = start + page_up(length + address - start) % _WORD
    return start, min(end, TASK_SIZE) if end < _WORD else start


def _pages(address: int, length: int) -> list[Range]:
    """As `span`, but nothing for arguments that the kernel refuses: unaligned or beyond user space."""
    if address % PAGE_SIZE or not 0 < length <= TASK_SIZE - address:
        return []
    return [(address, page_up(address + length))]


def released(
    call: Call, program_break: int, memory_fd: int, tid: int, tids: Container[int], mapped: Mapped
) -> list[Range]:
    """The ranges whose pages a call of task `tid` gives back to the kernel if it succeeds.

    `tids`: all tasks that use its memory.
    """
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
            # Beyond user space it finds nothing, but it has done what lies before.
            if arguments[2] in RELEASING_ADVICE and page_up(arguments[1]) + arguments[0] < _WORD:
                return _pages(arguments[0], min(arguments[1], max(TASK_SIZE - arguments[0], 0)))
        case "process_madvise":
            if arguments[3] in RELEASING_ADVICE and _names(arguments[0], tid, tids):
                return [pages for base, length in vector(memory_fd, call) for pages in _pages(base, length)]
        case "shmat":
            if arguments[2] & shm.SHM_REMAP:
                address = arguments[1] & -PAGE_SIZE if arguments[2] & shm.SHM_RND else arguments[1]
                return _pages(address, shm.segment_size(arguments[0]))
    return []


def replaces(call: Call) -> bool:
    """Whether a call puts something else in the place of what it releases, at once for all who look there."""
    return call.name in ("mmap", "shmat") or (call.name == "mremap" and call.arguments[3] & MREMAP_FIXED != 0)


def refuses_locked(call: Call) -> bool:
    """Whether a call would release memory, but fails where that is locked (mm/madvise.c)."""
    match call.name:
        case "madvise":
            return call.arguments[2] in _REFUSED_BY_LOCKED
        case "process_madvise":
            return call.arguments[3] in _REFUSED_BY_LOCKED
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


def _names(pidfd: int, tid: int, tids: Container[int]) -> bool:
    """Whether a descriptor of task `tid` is a pidfd of one of `tids`, a process or (Linux 6.9) a thread."""
    pidfd = ctypes.c_int(pidfd & 0xFFFFFFFF).value
    if pidfd < 0:
        return True  # PIDFD_SELF and PIDFD_SELF_THREAD (Linux 6.14)
    with (
        suppress(OSError, ValueError),
        open(f"{tid}/fdinfo/{pidfd}", encoding="utf-8", errors="replace", opener=in_proc) as info,
    ):
        return any(line.startswith("Pid:") and int(line[4:]) in tids for line in info)
    return False


def vector(memory_fd: int, call: Call) -> list[tuple[int, int]]:
    """Base and length of each range that a process_madvise names; none where that can't be read."""
    _, address, count, *_ = call.arguments
    size = 2 * call.word  # of struct iovec
    block = read_memory(memory_fd, address, size * min(count, 1024))
    whole = block[: len(block) // size * size]
    return list(struct.iter_unpack("=II" if call.word == 4 else "=QQ", whole))

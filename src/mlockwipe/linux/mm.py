# SPDX-License-Identifier: MIT
"""Memory: the system calls that map, lock, move, seal, share and release it.

Addresses and lengths are in bytes. Every function raises OSError with what was attempted.
"""

import ctypes
import os
from collections.abc import Sequence

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, fail, function

PAGE_SIZE = os.sysconf("SC_PAGESIZE")

# include/uapi/linux/shm.h
IPC_PRIVATE = 0
IPC_CREAT = 0o1000
IPC_RMID = 0

# include/uapi/linux/fs.h, fs/splice.c: SPLICE_F_NONBLOCK
SPLICE_F_NONBLOCK = 2

# what the C library has no function for
_SYS_BRK = NATIVE.numbers["brk"]
_SYS_MADVISE = NATIVE.numbers["madvise"]
_SYS_MLOCK2 = NATIVE.numbers["mlock2"]
_SYS_MEMFD_SECRET = NATIVE.numbers["memfd_secret"]
_SYS_PROCESS_MADVISE = NATIVE.numbers["process_madvise"]
_SYS_PROCESS_MRELEASE = NATIVE.numbers["process_mrelease"]
_SYS_MSEAL = NATIVE.numbers["mseal"]

_int, _long, _size, _pointer = ctypes.c_int, ctypes.c_long, ctypes.c_size_t, ctypes.c_void_p

# All of them may sleep: in the kernel, and for as long as a tracer or a seccomp supervisor takes to answer.
_mmap = function("mmap", _pointer, _pointer, _size, _int, _int, _int, _long, sleeps=True)
_munmap = function("munmap", _int, _pointer, _size, sleeps=True)
_mremap = function("mremap", _pointer, _pointer, _size, _size, _int, _pointer, sleeps=True)
_mprotect = function("mprotect", _int, _pointer, _size, _int, sleeps=True)
_mlock = function("mlock", _int, _pointer, _size, sleeps=True)
_mlockall = function("mlockall", _int, _int, sleeps=True)
_munlock = function("munlock", _int, _pointer, _size, sleeps=True)
_munlockall = function("munlockall", _int, sleeps=True)
_madvise = function("madvise", _int, _pointer, _size, _int, sleeps=True)
_mincore = function("mincore", _int, _pointer, _size, _pointer, sleeps=True)
_vmsplice = function("vmsplice", _long, _int, _pointer, _size, ctypes.c_uint, sleeps=True)
_shmget = function("shmget", _int, _int, _size, _int, sleeps=True)
_shmat = function("shmat", _pointer, _int, _pointer, _int, sleeps=True)
_shmdt = function("shmdt", _int, _pointer, sleeps=True)
_shmctl = function("shmctl", _int, _int, _int, _pointer, sleeps=True)
_syscall = function("syscall", _long, *([_long] * 7), sleeps=True)

_FAILED = ctypes.c_void_p(-1).value


def _address(result: int | None, attempted: str) -> int:
    if result == _FAILED:
        fail(attempted)
    return result or 0


def mmap(address: int, length: int, prot: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """Map `length` bytes and return where they are."""
    return _address(
        _mmap(address, length, prot, flags, fd, offset),
        f"mmap({address:#x}, {length}, {prot}, {flags:#x}, {fd}, {offset})",
    )


def munmap(address: int, length: int) -> None:
    checked(_munmap(address, length), f"munmap({address:#x}, {length})")


def mremap(address: int, old_length: int, new_length: int, flags: int = 0, new_address: int = 0) -> int:
    """Resize or move a mapping and return where it is now."""
    return _address(
        _mremap(address, old_length, new_length, flags, new_address),
        f"mremap({address:#x}, {old_length}, {new_length}, {flags}, {new_address:#x})",
    )


def mprotect(address: int, length: int, prot: int) -> None:
    checked(_mprotect(address, length, prot), f"mprotect({address:#x}, {length}, {prot})")


def mlock(address: int, length: int) -> None:
    checked(_mlock(address, length), f"mlock({address:#x}, {length})")


def mlock2(address: int, length: int, flags: int) -> None:
    """mlock with MLOCK_ONFAULT: pages are locked as they become resident."""
    checked(_syscall(_SYS_MLOCK2, address, length, flags, 0, 0, 0), f"mlock2({address:#x}, {length}, {flags})")


def mlockall(flags: int) -> None:
    checked(_mlockall(flags), f"mlockall({flags})")


def munlock(address: int, length: int) -> None:
    checked(_munlock(address, length), f"munlock({address:#x}, {length})")


def munlockall() -> None:
    checked(_munlockall(), "munlockall()")


def madvise(address: int, length: int, advice: int) -> None:
    checked(_madvise(address, length, advice), f"madvise({address:#x}, {length}, {advice})")


def madvise_register(address: int, length: int, register: int) -> None:
    """madvise with all 64 bits of the register that holds the advice, of which the kernel looks at the lower half."""
    checked(
        _syscall(_SYS_MADVISE, address, length, register, 0, 0, 0),
        f"madvise({address:#x}, {length}, {register:#x})",
    )


def process_madvise(pidfd: int, ranges: Sequence[tuple[int, int]], advice: int) -> int:
    """madvise by way of a pidfd, which may be one's own: any advice from Linux 6.13 on, EINVAL before.

    `ranges`: each an address and a length. Returns how many bytes were advised, until the first range that fails.
    """
    vector = (ctypes.c_size_t * (2 * len(ranges)))(*[word for one in ranges for word in one])  # struct iovec
    return checked(
        _syscall(_SYS_PROCESS_MADVISE, pidfd, ctypes.addressof(vector), len(ranges), advice, 0, 0),
        f"process_madvise({pidfd}, {len(ranges)} ranges, {advice})",
    )


def mincore(address: int, length: int) -> list[bool]:
    """Which pages of a range are resident; for a file: are in the page cache."""
    answer = (ctypes.c_ubyte * (-(-length // PAGE_SIZE)))()
    checked(_mincore(address, length, ctypes.addressof(answer)), f"mincore({address:#x}, {length})")
    return [bool(byte & 1) for byte in answer]


def mseal(address: int, length: int) -> None:
    """Refuse every later change to the mapping. Linux 6.10; before: OSError(ENOSYS)."""
    checked(_syscall(_SYS_MSEAL, address, length, 0, 0, 0, 0), f"mseal({address:#x}, {length})")


def brk(end: int = 0) -> int:
    """Ask for another end of the heap and return what it is now. The kernel reports no error, but the old end."""
    result: int = _syscall(_SYS_BRK, end, 0, 0, 0, 0, 0)
    return result


def vmsplice(pipe: int, address: int, length: int, flags: int = 0) -> int:
    """Put the pages of a range into a pipe: the pages, no copy of them. Returns how many bytes went in."""
    vector = (ctypes.c_size_t * 2)(address, length)  # struct iovec
    return checked(_vmsplice(pipe, ctypes.addressof(vector), 1, flags), f"vmsplice({pipe}, {address:#x}, {length})")


def memfd_secret(flags: int = 0) -> int:
    """A file of memory that the kernel itself can't reach. OSError(ENOSYS) where it is switched off.

    The one flag there is: os.O_CLOEXEC.
    """
    return checked(_syscall(_SYS_MEMFD_SECRET, flags, 0, 0, 0, 0, 0), f"memfd_secret({flags:#o})")


def process_mrelease(pidfd: int) -> None:
    """Release the memory of a process that is being killed. Linux 5.15; ESRCH when it is gone already."""
    checked(_syscall(_SYS_PROCESS_MRELEASE, pidfd, 0, 0, 0, 0, 0), f"process_mrelease({pidfd})")


def shmget(length: int) -> int:
    """A new private System V segment. It stays until it is removed."""
    return checked(_shmget(IPC_PRIVATE, length, IPC_CREAT | 0o600), f"shmget({length})")


def shmat(segment: int, address: int = 0, flags: int = 0) -> int:
    return _address(_shmat(segment, address, flags), f"shmat({segment}, {address:#x}, {flags:#o})")


def shmdt(address: int) -> None:
    checked(_shmdt(address), f"shmdt({address:#x})")


def shm_remove(segment: int) -> None:
    """Remove a segment as soon as nothing is attached to it."""
    checked(_shmctl(segment, IPC_RMID, 0), f"shmctl({segment}, IPC_RMID)")

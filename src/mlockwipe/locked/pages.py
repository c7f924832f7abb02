# SPDX-License-Identifier: MIT
"""Whole pages of locked memory between two guard pages."""

import ctypes
import errno
import mmap
import os
import resource

from mlockwipe.linux import mm, mman, procfs
from mlockwipe.linux.capability import CAP_IPC_LOCK
from mlockwipe.linux.mm import PAGE_SIZE

_READ_WRITE = mman.PROT_READ | mman.PROT_WRITE
_PRIVATE = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS

# What memfd_secret(2) says where there is none: no such call or secretmem.enable=0, and a container's filter.
_NO_MEMFD_SECRET = (errno.ENOSYS, errno.EPERM)


class LockLimitReached(OSError):
    """RLIMIT_MEMLOCK does not allow as much locked memory; errno is ENOMEM."""


class LockedPages:
    """Pages that are not swapped, dumped or passed on by fork, with a page before and after that can't be accessed.

    They are of memfd_secret(2) where the kernel has it: out of reach of the kernel's own reads, /proc/PID/mem and
    ptrace among them, and wiped by the kernel when the last user is gone. Elsewhere they are anonymous and mlocked.

    `memory` is all of the mapping, the guard pages included. What is used of it are `size` bytes from PAGE_SIZE on,
    at `address`. It is unmapped when nothing refers to `memory` any more, so an export of it can't dangle.
    """

    def __init__(self, size: int) -> None:
        """At least `size` bytes, all zero. Raises LockLimitReached, or OSError with what was attempted."""
        self.size = max(1, -(-size // PAGE_SIZE)) * PAGE_SIZE
        self.lost: str | None = None
        """Why the content is not here any more, if it isn't."""
        length = self.size + 2 * PAGE_SIZE
        try:
            self.memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + PAGE_SIZE
            mm.mprotect(self.address - PAGE_SIZE, PAGE_SIZE, mman.PROT_NONE)
            mm.mprotect(self.address + self.size, PAGE_SIZE, mman.PROT_NONE)
            self.secret = self._map_secret_memory()
            if not self.secret:
                self._lock_private_memory()
        except OverflowError as error:
            raise OSError(errno.ENOMEM, f"mmap({length}): {os.strerror(errno.ENOMEM)}") from error
        except OSError as error:
            raise _explained(error, self.size) from error

    def wipe(self) -> None:
        ctypes.memset(self.address, 0, self.size)

    def lose_in_child(self) -> None:
        """In a forked child: let go of the parent's pages. Zeros take their place.

        memfd_secret is shared memory, which the child would read and clear for its parent too. MADV_DONTFORK would
        leave a hole, for another mapping to slip into; so the child maps over it. Private pages read as zeros
        already, by MADV_WIPEONFORK.
        """
        self.lost = "it belongs to the process that forked this one"
        if self.secret:
            mm.mmap(self.address, self.size, _READ_WRITE, _PRIVATE | mman.MAP_FIXED)

    def _map_secret_memory(self) -> bool:
        """Map memfd_secret between the guards: False where there is none."""
        try:
            fd = mm.memfd_secret(os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_MEMFD_SECRET:
                return False
            raise
        try:
            os.ftruncate(fd, self.size)
            mm.mmap(self.address, self.size, _READ_WRITE, mman.MAP_SHARED | mman.MAP_FIXED, fd)
        finally:
            os.close(fd)
        return True

    def _lock_private_memory(self) -> None:
        mm.madvise(self.address, self.size, mman.MADV_DONTDUMP)
        mm.madvise(self.address, self.size, mman.MADV_WIPEONFORK)
        try:
            # khugepaged copies small pages into a huge one, and frees them as they are
            mm.madvise(self.address, self.size, mman.MADV_NOHUGEPAGE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel without huge pages
                raise
        mm.mlock(self.address, self.size)


def _explained(error: OSError, size: int) -> OSError:
    """The error for a user: LockLimitReached, where RLIMIT_MEMLOCK leaves no room for `size` bytes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        status = procfs.Status(os.getpid())
    except OSError:  # no /proc
        return error
    locked = int(status["VmLck"].split()[0]) * 1024
    if int(status["CapEff"], 16) & (1 << CAP_IPC_LOCK) or limit == resource.RLIM_INFINITY or locked + size <= limit:
        return error
    return LockLimitReached(
        errno.ENOMEM,
        f"can't lock {size} more bytes of memory: {locked} are locked and the limit (RLIMIT_MEMLOCK) is {limit}; "
        "raise it with 'ulimit -l' (in KiB) or LimitMEMLOCK= of the service, or release other buffers",
    )

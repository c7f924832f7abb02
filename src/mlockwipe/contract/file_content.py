# SPDX-License-Identifier: MIT
"""What a file holds, as a digest: in the page cache, which all who map it see, and on the disk."""

import ctypes
import hashlib
import mmap
import os

from mlockwipe.linux import mm, mman

_PART = 1 << 16  # bytes


def in_page_cache(path: str) -> str:
    """Seen through a mapping: a file system such as 9p answers read(2) past the page cache."""
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    at = mm.mmap(0, size, mman.PROT_READ, mman.MAP_PRIVATE, fd)
    os.close(fd)
    digest = in_memory(at, size)
    mm.munmap(at, size)
    return digest


def on_disk(path: str) -> str:
    """Read with the page cache left out; where the file system can't do that, after the cache was dropped."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)  # what is dirty can't be dropped
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    digest = hashlib.sha256()
    with mmap.mmap(-1, _PART) as part:  # aligned, as direct I/O needs it
        offset = 0
        while read := os.preadv(fd, [part], offset):
            digest.update(part[:read])
            offset += read
    os.close(fd)
    return digest.hexdigest()


def in_memory(address: int, size: int) -> str:
    return hashlib.sha256((ctypes.c_char * size).from_address(address)).hexdigest()

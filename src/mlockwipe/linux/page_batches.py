# SPDX-License-Identifier: MIT
"""References to pages that wait in the batches of each CPU, for work on the LRU lists and of mlock and munlock."""

import ctypes
import mmap

from mlockwipe.linux import prctl
from mlockwipe.linux.libc import function
from mlockwipe.linux.mman import MADV_COLLAPSE

_madvise = function("madvise", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, sleeps=True)
_HUGE = 1 << 21
_own = mmap.mmap(-1, 2 * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
_own_huge = (ctypes.addressof(ctypes.c_char.from_buffer(_own)) + _HUGE - 1) & -_HUGE
_own[len(_own) - 1] = 1  # behind the huge page: of a mapping without any page MADV_COLLAPSE does not even begin


def drain_page_batches() -> None:
    """Have every CPU give up the page references in its batches.

    A page that a fork child shared is written in place by its last user only if nobody else holds a reference;
    batches do (9 of 40 pages, Linux 6.18), the write then goes to a copy, and the page is freed as it was.
    MADV_COLLAPSE begins with lru_add_drain_all(), whatever becomes of the collapse (mm/khugepaged.c, Linux 6.1),
    unless huge pages are forbidden to this process, as it may have inherited it.
    """
    prctl.allow_huge_pages()
    _madvise(_own_huge, _HUGE, MADV_COLLAPSE)

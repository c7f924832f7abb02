# SPDX-License-Identifier: MIT
"""What a secret looks like: two 64-bit words that alternate through whole pages.

The words are stored one at a time. They never stand side by side in the code, the heap or a register of the
program that writes them, so a search of all memory for the pair finds the secret's own pages alone.
"""

import ctypes

from mlockwipe.linux.mm import PAGE_SIZE

FIRST = 0x5EC7E70F6D6C6F63
SECOND = 0x6B77697065A5C396

_WORDS = PAGE_SIZE // 8
_Page = ctypes.c_uint64 * _WORDS
_FIRSTS: list[ctypes.c_uint64 | int] = [FIRST] * (_WORDS // 2)
_SECONDS: list[ctypes.c_uint64 | int] = [SECOND] * (_WORDS // 2)


def paint(address: int, pages: int) -> None:
    """Fill pages with the pattern, in place."""
    for page in range(pages):
        words = _Page.from_address(address + page * PAGE_SIZE)
        words[0::2] = _FIRSTS
        words[1::2] = _SECONDS


def is_painted(address: int, pages: int) -> bool:
    """Whether every word of the pages is as `paint` left it."""
    for page in range(pages):
        words = _Page.from_address(address + page * PAGE_SIZE)
        if words[0::2] != _FIRSTS or words[1::2] != _SECONDS:
            return False
    return True


def is_zero(address: int, pages: int) -> bool:
    return not any(any(_Page.from_address(address + page * PAGE_SIZE)) for page in range(pages))

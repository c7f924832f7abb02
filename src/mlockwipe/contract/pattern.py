# SPDX-License-Identifier: MIT
"""What a secret looks like: two 64-bit words that alternate through whole pages.

The words are stored one at a time. They never stand side by side in the code, the heap or a register of the
program that writes them, so a search of all memory for the pair finds the secret's own pages alone.

A judge that searches all memory gives every run of a case a second word of its own, so that what one case
left behind is not held against the next, and where pages must go a third one, which `mark` puts in the
second's place here and there in every page that is shown: the search then tells these from others that the
case has painted.
"""

import ctypes
import os

from mlockwipe.linux.mm import PAGE_SIZE

FIRST = 0x5EC7E70F6D6C6F63
SECOND = 0x6B77697065A5C396
OWN_WORDS = "MLOCKWIPE_WORDS"  # in the environment of a case's processes: SECOND[,THIRD] in hexadecimal

_WORDS = PAGE_SIZE // 8
_MARK_EVERY = 128  # bytes
_Page = ctypes.c_uint64 * _WORDS
_FIRSTS: list[ctypes.c_uint64 | int] = [FIRST] * (_WORDS // 2)
_SECONDS: list[ctypes.c_uint64 | int] = [SECOND] * (_WORDS // 2)
_third: int | None = None


def use_own_words(words: str) -> None:
    """Take the words of OWN_WORDS from now on."""
    global _third
    second, *third = (int(word, 16) for word in words.split(","))
    _SECONDS[:] = [second] * (_WORDS // 2)
    _third = third[0] if third else None


if OWN_WORDS in os.environ:
    use_own_words(os.environ[OWN_WORDS])


def paint(address: int, pages: int) -> None:
    """Fill pages with the pattern, in place."""
    for page in range(pages):
        words = _Page.from_address(address + page * PAGE_SIZE)
        words[0::2] = _FIRSTS
        words[1::2] = _SECONDS


def mark(address: int, pages: int) -> None:
    """Put the third word, if there is one, into painted pages; they may be mapped read-only.

    Raises OSError: see proc_pid_mem(5).
    """
    if _third is None:
        return
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        for page in range(address, address + pages * PAGE_SIZE, PAGE_SIZE):
            if os.pread(memory, 8, page) == FIRST.to_bytes(8, "little"):
                for at in range(page, page + PAGE_SIZE, _MARK_EVERY):
                    os.pwrite(memory, _third.to_bytes(8, "little"), at + 8)
    finally:
        os.close(memory)


def is_painted(address: int, pages: int) -> bool:
    """Whether every word of the pages is as `paint` left it, or `mark`."""
    for page in range(pages):
        words = _Page.from_address(address + page * PAGE_SIZE)
        if words[0::2] != _FIRSTS or (words[1::2] != _SECONDS and set(words[1::2]) != {_SECONDS[0], _third}):
            return False
    return True


def is_zero(address: int, pages: int) -> bool:
    return not any(any(_Page.from_address(address + page * PAGE_SIZE)) for page in range(pages))

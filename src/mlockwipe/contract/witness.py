# SPDX-License-Identifier: MIT
"""The witness: a pipe that holds a program's pages, the physical ones, past the program's death.

A program vmsplices its locked pages into the pipe before it releases them. The pipe keeps a reference to
each page, so none can be used for anything else before the judge has read what it held when the program was
gone.

What it can't tell: a page that was copied (swap, compaction, KSM, a copy-on-write after fork) is another
page than the one in the pipe. Reading takes the pages out of the pipe. A pipe has room for 16 of them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mlockwipe.contract.case import KEPT, WIPED, Case
from mlockwipe.contract.pattern import FIRST, SECOND
from mlockwipe.contract.result import DAMAGED, FAILED, LEAKED
from mlockwipe.linux.mm import PAGE_SIZE

_PATTERN = FIRST.to_bytes(8, "little") + SECOND.to_bytes(8, "little")
_WHOLE = _PATTERN * (PAGE_SIZE // len(_PATTERN))
_ZERO = bytes(PAGE_SIZE)


@dataclass
class Pages:
    """What the pages held: all of the pattern, some of it, zeros, or anything else."""

    whole: int = 0
    part: int = 0
    zero: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return self.whole + self.part + self.zero + self.other

    @property
    def dirty(self) -> int:
        return self.whole + self.part

    def add(self, page: bytes) -> None:
        if page == _WHOLE:
            self.whole += 1
        elif page == _ZERO:
            self.zero += 1
        elif any(page[at : at + 8] in (_PATTERN[:8], _PATTERN[8:]) for at in range(0, len(page), 8)):
            self.part += 1
        else:
            self.other += 1


class Witness:
    """The judge's end. `write_end` is for the program alone: close it here once the program has it."""

    def __init__(self, read_end: int, write_end: int) -> None:
        self._read_end = read_end
        self.write_end = write_end
        self.environment: Mapping[str, str] = {}
        self.pages = Pages()

    @property
    def counts(self) -> tuple[int, int]:
        return self.pages.total, self.pages.dirty

    def look(self) -> None:
        """Judge the pages that were shown since the last look. They are let go by it."""
        # Pages come out one by one, as they went in: a read takes what one buffer of the pipe holds.
        while page := self._page():
            self.pages.add(page)

    look_at_last = look

    def verdict(self, case: Case, shown: int) -> tuple[str, str | None]:
        if self.pages.total != shown:
            return FAILED, f"{shown} pages were shown and {self.pages.total} arrived"
        return _wiped(self.pages) if case.expected == WIPED else _kept(self.pages)

    def _page(self) -> bytes:
        page = b""
        while len(page) < PAGE_SIZE:
            try:
                more = os.read(self._read_end, PAGE_SIZE - len(page))
            except BlockingIOError:  # empty, and somebody still holds the write end
                break
            if not more:
                break
            page += more
        return page


def _wiped(pages: Pages) -> tuple[str, str | None]:
    if pages.dirty:
        return LEAKED, None
    if pages.other:
        return FAILED, f"{pages.other} pages hold neither the secret nor zeros"
    return WIPED, None


def _kept(pages: Pages) -> tuple[str, str | None]:
    if pages.zero or pages.part:
        return DAMAGED, f"{pages.zero + pages.part} pages were wiped that must stay"
    if pages.other:
        return FAILED, f"{pages.other} pages hold neither what must stay nor zeros"
    return KEPT, None


@contextmanager
def witness() -> Iterator[Witness]:
    """A witness for one run."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    try:
        yield Witness(read_end, write_end)
    finally:
        os.close(read_end)
        os.close(write_end)

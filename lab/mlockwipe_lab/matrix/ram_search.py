# SPDX-License-Identifier: MIT
"""What a case has left in memory, seen by a search of all of it from outside of the guest."""

import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlockwipe.contract.case import KEPT, WIPED, Case
from mlockwipe.contract.pattern import OWN_WORDS
from mlockwipe.contract.program import PAGES
from mlockwipe.contract.result import DAMAGED, LEAKED
from mlockwipe.linux.page_batches import drain_page_batches
from mlockwipe.linux.physical import Frames, mapped

A_MOMENT = 0.05  # seconds: what waits for the references in another CPU's batches is zeroed by then
SETTLE = 0.15  # seconds after the last process of a case is gone: pages freed by another CPU have arrived by then


class RamSearch:
    """Sees the pages of one run of a case by a search of all memory: the `Eyes` of `mlockwipe.contract.judge`."""

    write_end = -1

    def __init__(self, case: Case, late: bool, ask: Callable[[dict[str, Any]], Any], frames: Frames) -> None:
        self._case = case
        self._late = late
        self._ask = ask
        self._frames = frames
        self._second, self._third = secrets.randbits(64), secrets.randbits(64)
        words = [self._second, self._third] if case.expected == WIPED else [self._second]
        self.environment: Mapping[str, str] = {OWN_WORDS: ",".join(f"{word:x}" for word in words)}
        self.alive: dict[int, tuple[int, str]] = {}  # by frame: the pairs in it and what it was
        self.gone: dict[int, tuple[int, str]] = {}
        self.lost = False  # of what was left alone, too little is there
        self._held: set[int] = set()
        self._shown = 0

    def look(self) -> None:
        found = self._released()
        if found and self._late and self._case.expected == WIPED:
            drain_page_batches()
            time.sleep(A_MOMENT)
            still = self._search()
            found = {frame: told for frame, told in found.items() if frame in still}
        self.alive.update(found)

    def look_at_last(self) -> None:
        time.sleep(SETTLE)
        self.gone = {frame: self._describe(frame, hits) for frame, hits in self._search(patient=True).items()}

    def verdict(self, case: Case, shown: int) -> tuple[str, str | None]:
        self._shown = shown
        if case.expected == WIPED:
            return self._wiped()
        found = self._held | self.alive.keys() | self.gone.keys()
        # Others use what is free, so some of what was left alone is overwritten before it is searched for.
        self.lost = len(found) * 2 < min(shown, PAGES)  # some cases show the same pages again and again
        if self.lost:
            return DAMAGED, f"{len(found)} of {shown} pages are still there"
        return KEPT, None

    @property
    def counts(self) -> tuple[int, int]:
        dirty = max(len(self.alive), len(self.gone))
        return max(self._shown, dirty), dirty

    def _wiped(self) -> tuple[str, str | None]:
        return (LEAKED if self.alive or self.gone else WIPED), None

    def _released(self) -> dict[int, tuple[int, str]]:
        """The frames that no process of the case maps any more."""
        pairs = self._search()
        mine = self._of_the_case(pairs)
        self._held.update(mine)
        return {frame: self._describe(frame, hits) for frame, hits in pairs.items() if frame not in mine}

    def _search(self, *, patient: bool = False) -> dict[int, int]:
        """The pairs in every frame that count: those that were marked, where some are to be."""
        question = {"search": [str(self._second), str(self._third)], "patient": patient}
        found = self._ask(question)
        seconds, thirds = (
            {int(frame): int(pairs) for frame, pairs in found[str(word)].items()}
            for word in (self._second, self._third)
        )
        if self._case.expected == WIPED and self._case.shows and self._case.needs_ram_scan is None:
            return {frame: pairs + seconds.get(frame, 0) for frame, pairs in thirds.items()}
        return {frame: seconds.get(frame, 0) + thirds.get(frame, 0) for frame in {*seconds, *thirds}}

    def _of_the_case(self, frames: Collection[int]) -> set[int]:
        """Those that a process still maps: they are not released. What only the carrier's processes map is."""
        if not any(self._frames.mappings(frame) for frame in frames):
            return set()
        found: set[int] = set()
        ours = os.getsid(0)
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                pid = int(process.name) if process.name.isdecimal() else 0
                if os.getsid(pid) != ours and not (process / "comm").read_text().startswith("mlockwipe"):
                    found.update(mapped(pid, frames))
        return found

    def _describe(self, frame: int, pairs: int) -> tuple[int, str]:
        return pairs, self._frames.kind(frame)

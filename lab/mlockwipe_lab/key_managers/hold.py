# SPDX-License-Identifier: MIT
"""Find a moment at which a key manager holds its secret, kill it there, and see what is left.

Moments are found by looking. The processes that may hold the secret are stopped at varied points of an
operation, and all memory is searched from outside; a moment counts when the secret stands in a page of such a
process. Without one there is no result: nothing was shown then, and nothing was clean.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

from mlockwipe.linux import procfs
from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe.linux.physical import Frames
from mlockwipe_lab.key_managers import PASSPHRASE, KeyManager, Operation, Wrap
from mlockwipe_lab.key_managers.page_owners import ANCESTOR, ITSELF, Locks, Mapped, of_process, traced
from mlockwipe_lab.key_managers.processes import all_ended, descendants, end, kill, named, resume, stop

TRIES = 60
BETTER = 30  # so many of them for locked memory, where a program locks any; then other memory will do
SETTLE = 0.2  # seconds between the end of the last process and the look at what is left

LOCKED, INHERITED = "locked", "inherited"
UNLOCKED, UNLOCKED_AGAIN = "unlocked", "unlocked again"
OTHER, NEW = "other process", "not there"
FOUND, NOT_FOUND = "found", "not found"
NEAR = 0.1  # of an operation: how near to a moment at which it was seen the next is
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly, however many there are

Look = Callable[[], Mapping[str, Sequence[int]]]  # the physical addresses of every needle, by label


@dataclass(frozen=True, slots=True)
class Hit:
    """Where the secret stood just before death. `page`: what the page was then: 'locked', 'inherited' from a process
    that had locked it, never locked ('unlocked'), 'unlocked again' (one munlock ends all locks of a page, also for a
    neighbour on it), of an 'other process' than the holders, or the state of a page that belongs to no process.
    `place`: the mapping and its process."""

    label: str
    address: int
    page: str
    place: str


@dataclass(frozen=True, slots=True)
class Remain:
    """Where the secret stands after death. `state`: what the page is now. `was`: what it was just before, as in
    `Hit`, or 'not there' where the secret did not stand in it."""

    label: str
    address: int
    state: str
    was: str


@dataclass(slots=True)
class Result:
    """`tries`: moments that were looked at. `traced`: whether the kernel told who has locked memory; without that an
    inherited page can't be told from one that was never locked."""

    key_manager: str
    carrier: str
    traced: bool
    moment: str = NOT_FOUND
    tries: int = 0
    locks: str = "no, VmLck 0 kB"
    before: list[Hit] = field(default_factory=list)
    after: list[Remain] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def hold(manager: KeyManager, prepared: Path, look: Look, wrap: Wrap, carrier: str, tries: int = TRIES) -> Result:
    """Run the second half of `manager` with a copy of what the first half left in `prepared`."""
    with tempfile.TemporaryDirectory(prefix="km-", dir="/tmp") as place, all_ended(), traced() as locks:
        result = Result(manager.name, carrier, locks.known)
        directory = Path(place, "k")
        shutil.copytree(prepared, directory)
        others = set(descendants())
        with manager.operate(directory, wrap) as operation:
            kill(_find(operation, look, locks, result, tries))
        end(but=others)
        if result.moment == FOUND:
            time.sleep(SETTLE)
            result.after = _remains(look(), result.before)
    return result


def _find(operation: Operation, look: Look, locks: Locks, result: Result, tries: int) -> list[int]:
    """The processes that hold the secret, stopped, and in `result` what they hold; none when there was no moment."""
    duration = _duration(operation)
    near: float | None = None  # the delay at which the secret was last seen, only not as it should
    for result.tries in range(1, tries + 1):
        spread = result.tries * GOLDEN % 1
        delay = duration * spread if near is None or result.tries % 2 else near + duration * NEAR * (spread - 0.5)
        operation.begin()
        time.sleep(max(0.0, delay))
        stopped = stop(named(operation.holders))
        if stopped:
            seen = look()
            owners = _owners(stopped, _frames(seen))
            hits = _hits(seen, owners, stopped, locks)
            kinds = {hit.page for hit in hits if hit.label != PASSPHRASE}
            # A copy outside of locked memory may be all there is, but it is not what this is about: look for more.
            more = result.tries <= BETTER and any(locks.taken(pid) or _locked_kb(pid) for pid in stopped)
            if kinds & {LOCKED, INHERITED} or (kinds & {UNLOCKED, UNLOCKED_AGAIN} and not more):
                result.moment, result.before, result.locks = FOUND, hits, _locks(stopped, locks)
                return [pid for pid in stopped if any(pid == page.pid for page in owners.values())]
            if kinds & {UNLOCKED, UNLOCKED_AGAIN}:
                near = delay
        resume(stopped)
        operation.finish()
    return []


def _duration(operation: Operation) -> float:
    """How many seconds an operation takes that is left alone."""
    durations = []
    for _ in range(3):  # the first starts an agent, loads libraries
        operation.begin()
        begun = time.monotonic()
        operation.finish()
        durations.append(time.monotonic() - begun)
    return median(durations)


def _frames(seen: Mapping[str, Sequence[int]]) -> set[int]:
    return {address // PAGE_SIZE for addresses in seen.values() for address in addresses}


def _kind(frame: int) -> str:
    """What a page is that belongs to none of the processes.

    'anonymous, unmapped': its process is gone, and a CPU has it in a batch that it has not worked off yet (mm/swap.c,
    mm/mlock.c). It is as good as free.
    """
    frames = _all_frames()
    kind = frames.kind(frame)
    return kind if kind != "anonymous" or frames.mappings(frame) else "anonymous, unmapped"


@cache
def _all_frames() -> Frames:
    return Frames()


def _owners(stopped: Sequence[int], wanted: set[int]) -> dict[int, Mapped]:
    """Who has the pages with the secret: of those that share one, the process that was stopped and has it locked."""
    owners: dict[int, Mapped] = {}
    for pid in [*stopped, *(set(descendants()) - set(stopped))]:
        with suppress(FileNotFoundError, ProcessLookupError):
            for frame, page in of_process(pid, wanted):
                if frame not in owners or (pid in stopped and page.locked):
                    owners[frame] = page
    return owners


def _hits(
    seen: Mapping[str, Sequence[int]], owners: Mapping[int, Mapped], stopped: Sequence[int], locks: Locks
) -> list[Hit]:
    pages = {frame: _page(owners.get(frame), frame, stopped, locks) for frame in _frames(seen)}
    places = {frame: _place(owners.get(frame)) for frame in pages}
    return [
        Hit(label, address, pages[address // PAGE_SIZE], places[address // PAGE_SIZE])
        for label, addresses in seen.items()
        for address in addresses
    ]


def _page(page: Mapped | None, frame: int, stopped: Sequence[int], locks: Locks) -> str:
    if page is None:
        return _kind(frame)
    if page.pid not in stopped:
        return OTHER
    if page.locked:
        return LOCKED
    return {None: UNLOCKED, ITSELF: UNLOCKED_AGAIN, ANCESTOR: INHERITED}[locks.by_whom(page.pid, page.address)]


def _place(page: Mapped | None) -> str:
    if page is None:
        return ""
    where = Path(page.name).name if page.name else "anonymous"
    with suppress(OSError):
        where += f" of {Path(f'/proc/{page.pid}/comm').read_text().strip()}"
    return where


def _locked_kb(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(procfs.status_field(pid, "VmLck").split()[0])
    return 0


def _locks(stopped: Sequence[int], locks: Locks) -> str:
    locked = max(map(_locked_kb, stopped))
    answer = "yes" if locked else "inherited" if any(map(locks.taken, stopped)) else "no"
    return f"{answer}, VmLck {locked} kB"


def _remains(seen: Mapping[str, Sequence[int]], before: Sequence[Hit]) -> list[Remain]:
    was = {hit.address // PAGE_SIZE: hit.page for hit in before}
    return [
        Remain(label, address, _kind(address // PAGE_SIZE), was.get(address // PAGE_SIZE, NEW))
        for label, addresses in seen.items()
        for address in addresses
    ]

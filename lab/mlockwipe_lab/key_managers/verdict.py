# SPDX-License-Identifier: MIT
"""What came of a key manager under a carrier: what was left of the locked memory in which its secret stood.

Copies that the program made elsewhere are counted and shown, and no carrier is judged by them. One that was nowhere
while the program stood still came about later: the carrier made it, or the kernel moved the page. It counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mlockwipe.contract.candidate import BARE
from mlockwipe.contract.case import WIPED
from mlockwipe.contract.result import FAILED, LEAKED, UNPROVEN
from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe_lab.key_managers import PASSPHRASE
from mlockwipe_lab.key_managers.hold import (
    FOUND,
    INHERITED,
    LOCKED,
    NEW,
    UNLOCKED,
    UNLOCKED_AGAIN,
    Hit,
    Remain,
    Result,
)

NOT_LOCKED = "not locked"
SKIPPED = "skipped"
JUDGED = frozenset((WIPED, LEAKED))
SENSITIVE = frozenset((LOCKED, INHERITED))  # what a carrier has to wipe
_ITS_OWN = SENSITIVE | {UNLOCKED, UNLOCKED_AGAIN}

_NOT_TRACED = "this kernel does not tell who has locked memory: it needs ftrace's system call events"
_ELSEWHERE = "its secret stood in no locked memory"
_IN_USE = "nothing wiped its pages, but others used them before they could be searched"
_NO_CONTROL = "nothing was found without a carrier either"
_LOCKED_THERE = "its secret stood in no locked memory here, as it did without a carrier"


@dataclass(frozen=True)
class Count:
    """How often the secret stands, and in how many pages."""

    pages: int
    hits: int


@dataclass(frozen=True)
class Verdict:
    """`verdict`: wiped, leaked, not locked, unproven, failed or skipped. `reason`: a sentence for one that does not
    explain itself. `result`: what was found, where a guest got as far."""

    key_manager: str
    verdict: str
    reason: str | None = None
    result: Result | None = None

    @property
    def locked(self) -> tuple[Count, Count]:
        """In locked memory and inherited copies of it, before the kill; after it in the same pages, and in any where
        it did not stand before."""
        return self._counts(sensitive=True)

    @property
    def others(self) -> tuple[Count, Count]:
        """In all other memory, before and after."""
        return self._counts(sensitive=False)

    def _counts(self, *, sensitive: bool) -> tuple[Count, Count]:
        if self.result is None:
            return Count(0, 0), Count(0, 0)
        before = [hit for hit in self.result.before if (hit.page in SENSITIVE) == sensitive]
        after = [remain for remain in self.result.after if (remain.was in {*SENSITIVE, NEW}) == sensitive]
        return _count(before), _count(after)


def _count(found: Iterable[Hit | Remain]) -> Count:
    """A passphrase counts only where it stood in memory of the program's own: it lies in a file, too."""
    pages = ((one, one.page if isinstance(one, Hit) else one.was) for one in found)
    addresses = [one.address for one, page in pages if one.label != PASSPHRASE or page in _ITS_OWN]
    return Count(len({address // PAGE_SIZE for address in addresses}), len(addresses))


def verdict_of(result: Result) -> Verdict:
    """Without regard to what was found without a carrier."""
    found = Verdict(result.key_manager, UNPROVEN, None, result)
    if result.moment != FOUND:
        return replace(found, reason=f"its secret was not found in memory at any of {result.tries} moments")
    before, after = found.locked
    if before.hits and after.hits:
        return replace(found, verdict=LEAKED)
    if not result.traced:  # what is missed may be an inherited copy
        return replace(found, reason=_NOT_TRACED)
    if not before.hits:
        return replace(found, verdict=NOT_LOCKED, reason=_ELSEWHERE)
    if result.carrier == BARE:
        return replace(found, reason=_IN_USE)
    return replace(found, verdict=WIPED)


def held_against(control: Mapping[str, str], verdict: Verdict) -> Verdict:
    """What is not found proves something only where it was found without a carrier: `control` has the verdicts there,
    by key manager."""
    there = control.get(verdict.key_manager)
    if verdict.verdict == WIPED and there != LEAKED:
        return replace(verdict, verdict=UNPROVEN, reason=_NO_CONTROL)
    if verdict.verdict == NOT_LOCKED and there == LEAKED:
        return replace(verdict, verdict=UNPROVEN, reason=_LOCKED_THERE)
    return verdict


def is_blind(verdict: Verdict) -> bool:
    """Of a verdict without a carrier: whether a secret in locked memory was not found although nothing wiped it."""
    before, after = verdict.locked
    return verdict.verdict == UNPROVEN and before.hits > 0 and after.hits == 0


def as_expected(carrier: str, verdicts: Iterable[Verdict]) -> bool:
    """Whether all that was judged is as it must be: left behind without a carrier, wiped with one.

    What is not locked, unproven or skipped counts neither way. No when nothing was judged: a run that proves nothing
    does not pass.
    """
    expected = LEAKED if carrier == BARE else WIPED
    judged = [verdict.verdict for verdict in verdicts if verdict.verdict in (*JUDGED, FAILED)]
    return bool(judged) and all(verdict == expected for verdict in judged)

# SPDX-License-Identifier: MIT
"""What came of a case."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlockwipe.contract.candidate import BARE
from mlockwipe.contract.case import WIPED

LEAKED = "leaked"
DAMAGED = "damaged"
FAILED = "failed"
NEEDS_RAM_SCAN = "needs-ram-scan"
UNPROVEN = "unproven"  # a RAM scan found nothing, and would have found nothing either way; or it can't be run there
NO_VERDICT = frozenset((NEEDS_RAM_SCAN, UNPROVEN))


@dataclass(frozen=True)
class Result:
    """One case under one carrier.

    `verdict`: wiped, kept, leaked, damaged, needs-ram-scan, unproven or failed. `pages`: how many were judged.
    `dirty`: how many of them still held the secret. `reason`: a sentence for a verdict that does not explain
    itself. `limit`: a verdict that is not the expected one, and why the carrier is known not to do better.
    """

    case: str
    row: str
    verdict: str
    expected: str
    pages: int
    dirty: int
    reason: str | None = None
    limit: str | None = None

    @property
    def ok(self) -> bool:
        """Whether a carrier that is meant to wipe has done what the contract says."""
        return self.verdict == self.expected

    def passes(self, carrier: str) -> bool:
        """Whether the verdict is as it must be under `carrier`: with none, every secret has to leak."""
        if carrier == BARE and self.expected == WIPED:
            return self.verdict == LEAKED
        return self.ok or self.limit is not None


def as_expected(carrier: str, results: Iterable[Result]) -> bool:
    """Whether all verdicts are as they must be. Cases that need a RAM scan and stated limits count neither way.

    No when nothing was judged: a run that proves nothing does not pass.
    """
    judged = [result for result in results if result.verdict not in NO_VERDICT]
    return bool(judged) and all(result.passes(carrier) for result in judged)


def to_json(results: Mapping[str, Sequence[Result]], machine: Mapping[str, object]) -> dict[str, object]:
    """The results by carrier, ready for json.dump."""
    return {
        "schema": 1,
        "machine": dict(machine),
        "carriers": {carrier: [record(result) for result in run] for carrier, run in results.items()},
    }


def record(result: Result) -> dict[str, object]:
    """One result, ready for json.dump."""
    told: dict[str, object] = {
        "case": result.case,
        "row": result.row,
        "verdict": result.verdict,
        "expected": result.expected,
        "pages": result.pages,
        "dirty": result.dirty,
    }
    if result.reason is not None:
        told["reason"] = result.reason
    if result.limit is not None:
        told["limit"] = result.limit
    return told

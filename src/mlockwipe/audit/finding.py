# SPDX-License-Identifier: MIT
"""What an audit has found: one finding for each locked range that a program left, lost or did not get."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlockwipe.audit.stacks import Stack
from mlockwipe.linux.libdw import Frame

SCHEMA = 1

UNLOCKED = "unlocked-uncleared"
LOST_BY_FORK = "lost-by-fork"
REFUSED = "lock-refused"
RELEASED = "released-uncleared"
NEVER_RELEASED = "never-released"

# From the worst on. The last is no fault: what was locked to the end was clear.
MEANINGS = {
    UNLOCKED: "unlocked before it was cleared: nothing wipes it any more",
    LOST_BY_FORK: "locked, then forked: the child's copies are not locked; it left them, or lived on as a daemon",
    REFUSED: "the lock was refused, and the program went on",
    RELEASED: "released while locked and before it was cleared: only a wipe saves it",
    NEVER_RELEASED: "cleared, but neither unlocked nor unmapped before the end",
}
FAULTS = frozenset((UNLOCKED, LOST_BY_FORK, REFUSED, RELEASED))


@dataclass(frozen=True)
class Finding:
    """One locked range.

    `cause`: the call that released, unlocked or was refused, or `exit`, `exec` or the signal that ended the process.
    `address`, `length`: the range, in bytes. `pages`, `bytes`, `entropy`: as in `mlockwipe.audit.content`.
    `process`, `thread`: who did it; `time`: when, in seconds since the epoch. `locked` and `released`: the stacks of
    the calls, empty where there was none: at exit, exec and death. `locked_by`: the process that locked, another one
    after a fork; `lock`: its call. `reason`: why the lock was refused.
    """

    kind: str
    cause: str
    address: int
    length: int
    pages: int
    bytes: int
    entropy: float
    program: str
    process: int
    thread: int
    time: float
    lock: str
    locked_by: int
    locked: Stack
    released: Stack
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "address": f"{self.address:#x}"}

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> "Finding":
        stacks = {name: tuple(Frame(**frame) for frame in told[name]) for name in ("locked", "released")}
        return cls(**{**told, **stacks, "address": int(told["address"], 16)})


@dataclass
class Group:
    """Findings of one kind, cause and place."""

    first: Finding
    times: int = 0
    pages: int = 0
    bytes: int = 0


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """By kind, cause, program and stacks; the worst kind first, and in it the most bytes."""
    groups: dict[tuple[object, ...], Group] = {}
    for finding in findings:
        key = (finding.kind, finding.cause, finding.program, finding.locked, finding.released, finding.reason)
        group = groups.setdefault(key, Group(finding))
        group.times += 1
        group.pages += finding.pages
        group.bytes += finding.bytes
    rank = {kind: number for number, kind in enumerate(MEANINGS)}
    return sorted(groups.values(), key=lambda group: (rank[group.first.kind], -group.bytes))


def is_fault(finding: Finding) -> bool:
    """Whether `--fail` counts it."""
    return finding.kind in FAULTS

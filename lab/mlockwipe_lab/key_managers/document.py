# SPDX-License-Identifier: MIT
"""What came of the key managers as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlockwipe_lab.key_managers.hold import Hit, Remain
from mlockwipe_lab.key_managers.judge import Run
from mlockwipe_lab.key_managers.verdict import Count, Verdict
from mlockwipe_lab.vm.guest_run import runs_as_document


def as_document(runs: Sequence[Run], machine: Mapping[str, object]) -> dict[str, object]:
    """The runs, ready for json.dump."""
    return runs_as_document(runs, machine, _record)


def _record(verdict: Verdict) -> dict[str, object]:
    told: dict[str, object] = {"key_manager": verdict.key_manager, "verdict": verdict.verdict}
    if verdict.reason is not None:
        told["reason"] = verdict.reason
    result = verdict.result
    if result is not None:
        told |= {
            "moment": result.moment,
            "tries": result.tries,
            "locks": result.locks,
            "locked": _counts(verdict.locked),
            "others": _counts(verdict.others),
            "before": [_place(hit) for hit in result.before],
            "after": [_place(remain) for remain in result.after],
        }
    return told


def _counts(counts: tuple[Count, Count]) -> dict[str, object]:
    before, after = counts
    return {"before": asdict(before), "after": asdict(after)}


def _place(found: Hit | Remain) -> dict[str, Any]:
    return {**asdict(found), "address": f"{found.address:#x}"}

# SPDX-License-Identifier: MIT
"""The matrix as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlockwipe.contract.result import record
from mlockwipe.lab.verify import Look, Run
from mlockwipe.linux.mm import PAGE_SIZE


def as_document(runs: Sequence[Run], machine: Mapping[str, object]) -> dict[str, object]:
    """The runs, ready for json.dump."""
    return {"schema": 1, "machine": dict(machine), "runs": [_run(run) for run in runs]}


def _run(run: Run) -> dict[str, object]:
    told: dict[str, object] = {
        "kernel": run.kernel.release,
        "carrier": run.carrier.name,
        "acceleration": run.acceleration,
        "guest": run.guest,
        "seconds": round(run.seconds, 1),
        "ok": run.ok,
        "results": [
            {**record(v.result), "alive": _look(v.alive), "gone": _look(v.gone), "seconds": v.seconds}
            for v in run.verdicts
        ],
    }
    if run.failed is not None:
        told["failed"] = run.failed
    if run.console:
        told["console"] = run.console
    return told


def _look(look: Look) -> dict[str, object]:
    return {"pages": look.pages, "places": [_place(place) for place in look.places]}


def _place(place: Mapping[str, Any]) -> dict[str, object]:
    return {
        "address": f"{place['frame'] * PAGE_SIZE:#x}",
        "pairs": place["pairs"],
        "kind": place["kind"],
    }

# SPDX-License-Identifier: MIT
"""The matrix as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlockwipe.contract.result import record
from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe_lab.matrix.judge import Look, Run, Verdict
from mlockwipe_lab.vm.guest_run import runs_as_document


def as_document(runs: Sequence[Run], machine: Mapping[str, object]) -> dict[str, object]:
    """The runs, ready for json.dump."""
    return runs_as_document(runs, machine, _record)


def _record(verdict: Verdict) -> dict[str, object]:
    looks = {"alive": _look(verdict.alive), "gone": _look(verdict.gone)}
    return {**record(verdict.result), **looks, "seconds": verdict.seconds}


def _look(look: Look) -> dict[str, object]:
    return {"pages": look.pages, "places": [_place(place) for place in look.places]}


def _place(place: Mapping[str, Any]) -> dict[str, object]:
    return {
        "address": f"{place['frame'] * PAGE_SIZE:#x}",
        "pairs": place["pairs"],
        "kind": place["kind"],
    }

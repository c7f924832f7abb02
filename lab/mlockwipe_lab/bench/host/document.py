# SPDX-License-Identifier: MIT
"""The figures for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlockwipe_lab.bench.host.facts import Fact
from mlockwipe_lab.bench.host.sampling import Figure

SCHEMA = 1


def as_json(machine: Mapping[str, Fact], figures: Sequence[Figure], missing: Mapping[str, str]) -> str:
    document = {
        "schema": SCHEMA,
        "machine": machine,
        "figures": [_figure(figure) for figure in figures],
        "missing": missing,
    }
    return json.dumps(document, indent=2) + "\n"


def _figure(figure: Figure) -> dict[str, Any]:
    document = {
        "name": figure.name,
        "what": figure.what,
        "unit": figure.unit,
        "median": round(figure.median, 4),
        "interval": [round(bound, 4) for bound in figure.interval],
        "distinguishable": figure.distinguishable,
        "quartiles": [round(bound, 4) for bound in figure.quartiles],
        "values": [round(value, 4) for value in figure.values],
        "goal": figure.goal,
        "aim": figure.aim,
        "reached": figure.reached,
        "nanoseconds": {variant: round(time) for variant, time in figure.times.items()},
    }
    if figure.distributions:
        document["calls_up_to_nanoseconds"] = {
            variant: {round(bound): calls for bound, calls in distribution.items()}
            for variant, distribution in figure.distributions.items()
        }
    return document

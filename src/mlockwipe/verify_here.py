# SPDX-License-Identifier: MIT
"""The contract's cases on this machine, under the carriers that can run here."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mlockwipe import __version__
from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.case import Case
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import Result, to_json
from mlockwipe.contract.runner import verify
from mlockwipe.interruption import ends_by_signal

Results = Mapping[str, Sequence[Result]]


def matching(pattern: str) -> list[Case]:
    """The cases whose name ('W7-sigkill-busy') matches a shell pattern."""
    return [case for case in all_cases() if fnmatchcase(case.name, pattern)]


@ends_by_signal()
def verify_here(carriers: Sequence[str], cases: Sequence[Case]) -> dict[str, list[Result]]:
    """Run the cases under 'none', 'supervisor', or both; a terminal on stderr shows how far they have come."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars = {name: progress.add_task(name, total=len(cases)) for name in carriers}
        return verify(
            [CARRIERS[name] for name in carriers],
            cases=cases,
            on_result=lambda name, _result: progress.advance(bars[name]),
        )


def machine() -> dict[str, object]:
    """What the verdicts were found on."""
    system = os.uname()
    return {
        "kernel": system.release,
        "architecture": system.machine,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "mlockwipe": __version__,
    }


def as_document(results: Results) -> str:
    """The results as JSON text."""
    return json.dumps(to_json(results, machine()), indent=2) + "\n"

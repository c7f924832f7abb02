# SPDX-License-Identifier: MIT
"""The contract's cases on this machine, under the carriers that can run here."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mlockwipe import __version__
from mlockwipe.contract import Carrier, Case, Result, all_cases, bare, to_json, verify
from mlockwipe.interruption import ends_by_signal
from mlockwipe.supervisor.limits import LIMITS

Results = Mapping[str, Sequence[Result]]


def carrier(name: str) -> Carrier:
    """The carrier 'none' or 'supervisor'."""
    if name == "none":
        return bare()
    # -P: a directory named mlockwipe where the user happens to stand is not ours
    front = [sys.executable, "-P", "-m", "mlockwipe", "run", "--quiet", "--"]
    return Carrier(name, lambda command: [*front, *command], LIMITS)


def matching(pattern: str) -> list[Case]:
    """The cases whose name ('W7-sigkill-busy') matches a shell pattern."""
    return [case for case in all_cases() if fnmatchcase(case.name, pattern)]


@ends_by_signal()
def verify_here(carriers: Sequence[str], cases: Sequence[Case]) -> dict[str, list[Result]]:
    """Run the cases under each carrier; where stderr is a terminal, show there how far it has come."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars = {name: progress.add_task(name, total=len(cases)) for name in carriers}
        return verify(
            [carrier(name) for name in carriers],
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

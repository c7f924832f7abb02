# SPDX-License-Identifier: MIT
"""Draw docs/lab.svg from what `mlockwipe lab verify --json FILE` wrote: a table a kernel, a line for each row.

python -m mlockwipe_lab.plots.matrix FILE docs/lab.svg
"""

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from mlockwipe.contract.result import Result
from mlockwipe.contract.verdict_table import print_table

WIDTH = 132  # characters: three carriers side by side

_FIELDS = {field.name for field in fields(Result)}


def draw(document: Mapping[str, Any], picture: Path) -> None:
    """Write an SVG of what `mlockwipe lab verify --json` wrote. Raises OSError."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print("[bold]$ mlockwipe lab verify[/]")
    for kernel, found in groupby(document["runs"], itemgetter("kernel")):
        runs = list(found)
        console.print(f"\n[bold]Linux {escape(kernel)}[/], all memory searched", highlight=False)
        whole = {run["carrier"]: _results(run) for run in runs if "failed" not in run}
        if whole:
            print_table(whole, console, explained=False)
        for run in runs:
            if "failed" in run:
                console.print(f"[bold]{run['carrier']}[/]: [bold red]{escape(run['failed'])}[/]", highlight=False)
    console.save_svg(str(picture), title="mlockwipe lab verify")


def _results(run: Mapping[str, Any]) -> list[Result]:
    return [Result(**{key: told[key] for key in told.keys() & _FIELDS}) for told in run["results"]]


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))

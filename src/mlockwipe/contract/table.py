# SPDX-License-Identifier: MIT
"""Results for people: one line a case, one column a carrier."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlockwipe.contract.result import NEEDS_RAM_SCAN, Result, as_expected

_COLOURS = {
    "wiped": "green",
    "kept": "green",
    "leaked": "red",
    "damaged": "bold red",
    "failed": "bold red",
    NEEDS_RAM_SCAN: "yellow",
}


def print_table(results: Mapping[str, Sequence[Result]], console: Console | None = None) -> None:
    """Print the verdicts of all carriers side by side, what explains them, and a summary of each carrier."""
    console = console or Console()
    console.print(_table(results))
    for carrier, run in results.items():
        for result in run:
            if result.reason is not None:
                colour = _COLOURS[result.verdict]
                console.print(
                    f"{carrier}: [{colour}]{result.case}[/]: {escape(result.reason)}",
                    highlight=False,
                    soft_wrap=True,
                )
    for carrier, run in results.items():
        console.print(_summary(carrier, run), highlight=False)


def _table(results: Mapping[str, Sequence[Result]]) -> Table:
    table = Table("case", "expected", *results, box=None, header_style="bold", pad_edge=False)
    row = None
    for same_case in zip(*results.values(), strict=True):
        first = same_case[0]
        if row not in (None, first.row):
            table.add_section()
            table.add_row()
        row = first.row
        table.add_row(first.case, first.expected, *(_cell(result) for result in same_case))
    return table


def _cell(result: Result) -> str:
    count = f" {result.dirty}/{result.pages}" if result.dirty and result.verdict == "leaked" else ""
    return f"[{_COLOURS[result.verdict]}]{result.verdict}{count}[/]"


def _summary(carrier: str, run: Sequence[Result]) -> str:
    counts = Counter(result.verdict for result in run)
    parts = [f"[{colour}]{verdict} {counts[verdict]}[/]" for verdict, colour in _COLOURS.items() if counts[verdict]]
    judgement = "as the contract says" if as_expected(carrier, run) else "[bold red]not as the contract says[/]"
    return f"[bold]{carrier}[/]: {', '.join(parts)}: {judgement}"

# SPDX-License-Identifier: MIT
"""Results for people: one line a row of the contract or a case, one column a carrier."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlockwipe.contract.result import NEEDS_RAM_SCAN, NO_VERDICT, UNPROVEN, Result, as_expected

ROWS = {
    "W1": "munmap",
    "W2": "mmap with MAP_FIXED over it",
    "W3": "mremap: shrink, move, onto it",
    "W4": "brk",
    "W5": "MADV_DONTNEED_LOCKED",
    "W6": "exit",
    "W7": "death by signal, SIGKILL, OOM",
    "W8": "exec",
    "W9": "PROT_NONE and PROT_READ",
    "W10": "mlockall, on fault",
    "W11": "private file mapping, changed pages",
    "W12": "copies inherited by fork",
    "W13": "transparent huge pages",
    "L1": "unlocked, or never locked",
    "L2": "file pages",
    "L3": "shared memory, KSM, memfd_secret",
    "L4": "what another process sees",
    "L5": "calls that fail",
    "L6": "I/O in flight",
    "L7": "what the program can see",
    "L8": "whoever is not the program",
}

LIMIT = "stated limit"

_COLOURS = {
    "wiped": "green",
    "kept": "green",
    "leaked": "red",
    "damaged": "bold red",
    "failed": "bold red",
    NEEDS_RAM_SCAN: "yellow",
    UNPROVEN: "yellow",
    LIMIT: "yellow",
}


def print_table(
    results: Mapping[str, Sequence[Result]],
    console: Console | None = None,
    *,
    every_case: bool = False,
    explained: bool = True,
) -> None:
    """Print the verdicts of all carriers side by side, what explains them, and a summary of each carrier.

    One line a row of the contract, or one a case; what is not as it must be is named either way, if `explained`.
    """
    console = console or Console()
    console.print(_case_table(results) if every_case else _row_table(results))
    for carrier, run in results.items() if explained else ():
        cases: dict[str, list[str]] = {}  # by what explains them
        for result in run:
            if reason := _explanation(carrier, result, every_case=every_case):
                cases.setdefault(reason, []).append(f"[{_colour(result)}]{result.case}[/]")
        for reason, names in cases.items():
            console.print(f"{carrier}: {', '.join(names)}: {escape(reason)}", highlight=False, soft_wrap=True)
    for carrier, run in results.items():
        console.print(_summary(carrier, run), highlight=False)


def _explanation(carrier: str, result: Result, *, every_case: bool) -> str | None:
    if result.limit is not None:
        return f"{result.verdict}, a {LIMIT}: {result.limit}"
    if result.verdict in NO_VERDICT:
        return f"{result.verdict}: {result.reason}" if every_case else None
    if not result.passes(carrier):
        return f"{result.verdict} instead of {result.expected}" + (f": {result.reason}" if result.reason else "")
    return None


def _row_table(results: Mapping[str, Sequence[Result]]) -> Table:
    table = Table("", "what is released, or left alone", *results, box=None, header_style="bold", pad_edge=False)
    for row in dict.fromkeys(result.row for run in results.values() for result in run):
        if row == "L1":
            table.add_section()
            table.add_row()
        cells = (_row_cell([result for result in run if result.row == row]) for run in results.values())
        table.add_row(row, ROWS.get(row, ""), *cells)
    return table


def _row_cell(run: Sequence[Result]) -> str:
    counts = Counter(_mark(result) for result in run)
    return ", ".join(f"[{colour}]{mark} {counts[mark]}[/]" for mark, colour in _COLOURS.items() if counts[mark])


def _case_table(results: Mapping[str, Sequence[Result]]) -> Table:
    table = Table("case", "expected", *results, box=None, header_style="bold", pad_edge=False)
    row = None
    for same_case in zip(*results.values(), strict=True):
        first = same_case[0]
        if row not in (None, first.row):
            table.add_section()
            table.add_row()
        row = first.row
        table.add_row(first.case, first.expected, *(_case_cell(result) for result in same_case))
    return table


def _case_cell(result: Result) -> str:
    count = f" {result.dirty}/{result.pages}" if result.dirty and result.verdict == "leaked" else ""
    return f"[{_colour(result)}]{result.verdict}{count}[/]"


def _mark(result: Result) -> str:
    return LIMIT if result.limit is not None else result.verdict


def _colour(result: Result) -> str:
    return _COLOURS[_mark(result)]


def _summary(carrier: str, run: Sequence[Result]) -> str:
    return f"[bold]{carrier}[/]: {', '.join(_summary_parts(carrier, run))}"


def _summary_parts(carrier: str, run: Sequence[Result]) -> Iterator[str]:
    if cell := _row_cell(run):
        yield cell
    dirty = sum(result.dirty for result in run if result.verdict == "leaked")
    if dirty:
        yield f"{dirty} pages left behind"
    yield "as the contract says" if as_expected(carrier, run) else "[bold red]not as the contract says[/]"

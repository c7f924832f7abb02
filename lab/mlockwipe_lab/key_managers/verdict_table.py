# SPDX-License-Identifier: MIT
"""What came of the key managers for people: two lines each, one column a carrier."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlockwipe.contract.candidate import BARE
from mlockwipe.contract.case import WIPED
from mlockwipe.contract.result import FAILED, LEAKED, UNPROVEN
from mlockwipe_lab.key_managers.verdict import (
    JUDGED,
    NOT_LOCKED,
    SKIPPED,
    Count,
    Verdict,
    as_expected,
)

_COLOURS = {
    WIPED: "green",
    LEAKED: "red",
    FAILED: "bold red",
    NOT_LOCKED: "default",
    UNPROVEN: "yellow",
    SKIPPED: "yellow",
}


def print_table(results: Mapping[str, Sequence[Verdict]], console: Console) -> None:
    """The secret before the kill and after it, what explains the verdicts, and a summary of each carrier."""
    table = Table("key manager", "memory", *results, box=None, header_style="bold", pad_edge=False)
    columns = [{verdict.key_manager: verdict for verdict in verdicts} for verdicts in results.values()]
    for name in dict.fromkeys(name for column in columns for name in column):
        row = [column.get(name) for column in columns]
        table.add_row(name, "locked", *map(_locked, row))
        table.add_row("", "others", *map(_others, row))
    console.print(table)
    console.print("pages with the secret before the kill -> after it (how often it stands there)", soft_wrap=True)
    for reason, named in _reasons(results).items():
        console.print(f"{', '.join(named)}: {escape(reason)}", highlight=False, soft_wrap=True)
    for carrier, verdicts in results.items():
        console.print(_summary(carrier, verdicts), highlight=False)


def _locked(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    colour = _COLOURS[verdict.verdict]
    if verdict.verdict in JUDGED:
        return f"[{colour}]{_change(*verdict.locked)}[/]"
    return f"[{colour}]{verdict.verdict}[/]"


def _others(verdict: Verdict | None) -> str:
    if verdict is None or verdict.result is None or not any(count.hits for count in verdict.others):
        return ""
    return _change(*verdict.others)


def _change(before: Count, after: Count) -> str:
    return f"{_told(before)} -> {_told(after)}"


def _told(count: Count) -> str:
    return f"{count.pages} ({count.hits})" if count.hits else "0"


def _reasons(results: Mapping[str, Sequence[Verdict]]) -> dict[str, list[str]]:
    """Whom each reason explains; a key manager that is not installed is not under any carrier."""
    reasons: dict[str, list[str]] = {}
    for carrier, verdicts in results.items():
        for verdict in verdicts:
            if verdict.reason is not None and verdict.verdict != NOT_LOCKED:
                mark = f"[{_COLOURS[verdict.verdict]}]{verdict.key_manager}[/] {verdict.verdict}"
                named = mark if verdict.verdict == SKIPPED else f"{carrier}: {mark}"
                if named not in (names := reasons.setdefault(verdict.reason, [])):
                    names.append(named)
    return reasons


def _summary(carrier: str, verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.verdict for verdict in verdicts)
    parts = [f"[{colour}]{mark} {counts[mark]}[/]" for mark, colour in _COLOURS.items() if counts[mark]]
    wanted = "left behind what was locked" if carrier == BARE else "left nothing of what was locked"
    if as_expected(carrier, verdicts):
        parts.append(wanted)
    elif any(counts[mark] for mark in (*JUDGED, FAILED)):
        parts.append(f"[bold red]not: {wanted}[/]")
    else:
        parts.append("[bold red]nothing could be judged[/]")
    return f"[bold]{carrier}[/]: {', '.join(parts)}"

# SPDX-License-Identifier: MIT
"""The matrix as JSON and as pages for a browser."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlockwipe.contract.result import NO_VERDICT, record
from mlockwipe.contract.table import ROWS
from mlockwipe.lab.verify import Look, Run, Verdict
from mlockwipe.linux.mm import PAGE_SIZE

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .15rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
th.row { padding-top: 1rem; }
.wiped, .kept { color: #1a7f37; } .leaked { color: #cf222e; } .damaged, .failed { color: #cf222e; font-weight: bold; }
.unproven, .limit { color: #9a6700; } .bad { background: #cf222e33; }
pre { overflow: auto; background: #8881; padding: .6rem; }
"""


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
        told |= {"failed": run.failed, "console": run.console}
    return told


def _look(look: Look) -> dict[str, object]:
    return {"pages": look.pages, "places": [_place(place) for place in look.places]}


def _place(place: Mapping[str, Any]) -> dict[str, object]:
    return {
        "address": f"{place['frame'] * PAGE_SIZE:#x}",
        "pairs": place["pairs"],
        "kind": place["kind"],
    }


# Pages


def write_pages(runs: Sequence[Run], machine: Mapping[str, object], place: Path) -> None:
    """index.html with the matrix, and a page for each verdict that is not as it must be. Raises OSError."""
    (place / "index.html").write_text(_index(runs, machine), encoding="utf-8")
    for run in runs:
        for verdict in run.verdicts:
            if not _passes(run, verdict):
                (place / _name(run, verdict)).write_text(_case_page(run, verdict), encoding="utf-8")


def _passes(run: Run, verdict: Verdict) -> bool:
    return verdict.result.verdict in NO_VERDICT or verdict.result.passes(run.carrier.name)


def _name(run: Run, verdict: Verdict) -> str:
    return f"{run.kernel.release}-{run.carrier.name}-{verdict.result.case}.html"


def _index(runs: Sequence[Run], machine: Mapping[str, object]) -> str:
    heads = "".join(f"<th>{_text(run.kernel.release)}<br>{_text(run.carrier.name)}</th>" for run in runs)
    parts = [f"<table><tr><th>case</th>{heads}</tr>"]
    row = None
    verdicts = [{verdict.result.case: verdict for verdict in run.verdicts} for run in runs]
    for case in dict.fromkeys(name for column in verdicts for name in column):
        first = next(column[case] for column in verdicts if case in column).result
        if first.row != row:
            row = first.row
            parts.append(f"<tr><th class=row colspan={len(runs) + 1}>{row}: {_text(ROWS.get(row, ''))}</th></tr>")
        cells = "".join(_cell(run, column.get(case)) for run, column in zip(runs, verdicts, strict=True))
        parts.append(f"<tr><td>{_text(case)}</td>{cells}</tr>")
    parts.append("</table>")
    for run in runs:
        if run.failed is not None:
            parts.append(f"<h2>{_text(run.kernel.release)}, {_text(run.carrier.name)}: {_text(run.failed)}</h2>")
            parts.append(f"<pre>{_text(run.console[-4000:])}</pre>")
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    return _page("The contract, judged by searching all memory", f"<p>On {_text(facts)}.</p>" + "\n".join(parts))


def _cell(run: Run, verdict: Verdict | None) -> str:
    if verdict is None:
        return "<td></td>"
    result = verdict.result
    if result.limit is not None:
        return f'<td class=limit title="{_text(result.limit)}">{result.verdict}, a stated limit</td>'
    count = f" {result.dirty}/{result.pages}" if result.verdict == "leaked" else ""
    if _passes(run, verdict):
        return f'<td class={result.verdict} title="{_text(result.reason or "")}">{result.verdict}{count}</td>'
    return f'<td class="bad {result.verdict}"><a href="{_name(run, verdict)}">{result.verdict}{count}</a></td>'


def _case_page(run: Run, verdict: Verdict) -> str:
    result = verdict.result
    looks = "".join(
        f"<h2>{moment}: {look.pages} pages</h2>"
        "<table><tr><th>physical address</th><th>pairs</th><th>page is now</th></tr>"
        + "".join(
            f"<tr><td>{place['frame'] * PAGE_SIZE:#x}</td><td>{place['pairs']}</td><td>{place['kind']}</td></tr>"
            for place in look.places
        )
        + "</table>"
        for moment, look in (("Right after the release", verdict.alive), ("All processes gone", verdict.gone))
    )
    return _page(
        f"{result.case}: {result.verdict} instead of {result.expected}",
        f"<p>Linux {_text(run.kernel.release)}, carrier {_text(run.carrier.name)}. {_text(result.reason or '')}</p>"
        f"{looks}<p><a href='index.html'>all cases</a></p>",
    )


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title><style>{_STYLE}</style>"
        f"<h1>{_text(title)}</h1>{body}</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)

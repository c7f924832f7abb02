# SPDX-License-Identifier: MIT
"""The matrix as pages for a browser: one of all verdicts, and one for each that is not as it must be.

A verdict is told by a sign as well as by its colour, and on a narrow screen by the sign alone.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import NEEDS_RAM_SCAN, UNPROVEN, Result
from mlockwipe.contract.verdict_table import LIMIT, ROWS
from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe_lab.matrix.judge import Look, Run, Verdict

# the sign, the colour's name in the style sheet, and what it means
_SIGNS = {
    "wiped": ("✓", "good", "nothing of it was found"),
    "kept": ("=", "good", "left alone, as it must be"),
    "leaked": ("✗", "leak", "so many pages of it were found"),
    "damaged": ("‼", "leak", "what must stay was taken"),
    "failed": ("!", "leak", "it could not be judged"),
    UNPROVEN: ("?", "open", "there was nothing to be found without a carrier either, or it can't be run there"),
    NEEDS_RAM_SCAN: ("?", "open", "only a search of all memory can tell"),
    LIMIT: ("~", "open", "the carrier is known not to do better"),
}

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif;
  --good: #116329; --leak: #b3151f; --open: #7d4e00; --line: #8884; --bad: #b3151f22; }
@media (prefers-color-scheme: dark) { :root { --good: #56d364; --leak: #ff8a80; --open: #e3b341; --bad: #ff8a8033; } }
body { max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-spacing: 0; width: 100%; }
th, td { text-align: left; padding: .15rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead { position: sticky; top: 0; z-index: 1; } thead th { vertical-align: bottom; background: Canvas; }
tr { scroll-margin-top: 4rem; } th.row { padding-top: 1.1rem; } th.kernel { border-left: 1px solid var(--line); }
.case { font-weight: normal; } .case small, dd { opacity: .75; }
.good { color: var(--good); } .leak { color: var(--leak); } .open { color: var(--open); }
.bad { background: var(--bad); font-weight: bold; outline: 2px solid var(--leak); outline-offset: -2px; }
b { display: inline-block; min-width: 1.1em; }
a { color: inherit; } pre { overflow: auto; background: #8881; padding: .6rem; overflow-wrap: normal; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dd { margin: 0; }
@media (max-width: 45rem) {
  body { margin: .5rem auto; padding: 0 .4rem; }
  th, td { padding: .15rem; }
  tr { scroll-margin-top: 9.5rem; }
  .matrix .word, .case small { display: none; }
  .matrix thead .carrier { writing-mode: vertical-rl; font-weight: normal; }
}
"""


def write_pages(runs: Sequence[Run], machine: Mapping[str, object], place: Path) -> None:
    """index.html, and a page for each verdict that is not as it must be. Raises OSError."""
    (place / "index.html").write_text(_index(runs, machine), encoding="utf-8")
    for run in runs:
        for verdict in run.wrong:
            (place / _name(run, verdict)).write_text(_case_page(run, verdict), encoding="utf-8")


def _name(run: Run, verdict: Verdict) -> str:
    words = f"{run.kernel.release}-{run.carrier.name}-{verdict.result.case}"
    return re.sub(r"[^\w.-]", "_", words, flags=re.ASCII) + ".html"


# The matrix


def _index(runs: Sequence[Run], machine: Mapping[str, object]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts = [f"<p>On {_text(facts)}.</p>", *map(_summary, runs), _key(runs), _matrix(runs)]
    for run in runs:
        if run.console:
            end = "the end of its console" if run.failed is None else run.failed
            parts.append(f"<h2>{_of(run)}: {_text(end)}</h2><pre>{_text(run.console[-4000:])}</pre>")
    return _page("The contract, judged by searching all memory", "\n".join(parts))


def _summary(run: Run) -> str:
    """What came of a run, and the way to all that is not as it must be."""
    counts = Counter(_mark(result) for result in run.results)
    told = [f"<span class={_SIGNS[mark][1]}>{mark} {counts[mark]}</span>" for mark in _SIGNS if counts[mark]]
    end = "<span class=good>as the contract says</span>" if run.ok else "<b class=leak>not as the contract says</b>"
    blind = f"; the judge is blind in {_text(', '.join(run.blind_rows))}" if run.blind_rows else ""
    failed = f"; {_text(run.failed)}" if run.failed is not None else ""
    links = "".join(
        f"<li><a href='{_name(run, verdict)}'>{_text(verdict.result.case)}</a>: {_text(_instead(verdict.result))}"
        for verdict in run.wrong
    )
    return f"<h2>{_of(run)}</h2><p>{', '.join([*told, end])}{blind}{failed}</p>" + (links and f"<ul>{links}</ul>")


def _key(runs: Sequence[Run]) -> str:
    marks = {_mark(result) for run in runs for result in run.results}
    return (
        "<h2>All cases</h2><dl>"
        + "".join(
            f"<dt class={colour}><b>{sign}</b> {_text(mark)}</dt><dd>{_text(meaning)}</dd>"
            for mark, (sign, colour, meaning) in _SIGNS.items()
            if mark in marks
        )
        + "</dl>"
    )


def _matrix(runs: Sequence[Run]) -> str:
    why = {case.name: case.why for case in all_cases()}
    columns = [{verdict.result.case: verdict for verdict in run.verdicts} for run in runs]
    parts = [f"<table class=matrix><thead>{''.join(_heads(runs))}</thead><tbody>"]
    row = None
    for case in dict.fromkeys(name for column in columns for name in column):
        first = next(column[case] for column in columns if case in column).result
        if first.row != row:
            row = first.row
            title = _text(f"{row}: {ROWS.get(row, '')}")
            parts.append(f"<tr id='{_text(row)}'><th class=row colspan={len(runs) + 1}>{title}</th>")
        cells = "".join(_cell(run, column.get(case)) for run, column in zip(runs, columns, strict=True))
        parts.append(
            f"<tr><th class=case>{_text(case)}<br><small>{_text(why.get(case, ''))}</small></th>{cells}</tr>"
        )
    return "\n".join([*parts, "</tbody></table>"])


def _heads(runs: Sequence[Run]) -> Iterator[str]:
    """The kernels, each over its carriers."""
    kernels = Counter(run.kernel.release for run in runs)
    yield "<tr><th rowspan=2>case</th>"
    yield "".join(f"<th class=kernel colspan={count}>{_text(name)}</th>" for name, count in kernels.items())
    yield "</tr><tr>" + "".join(f"<th><span class=carrier>{_text(run.carrier.name)}</span></th>" for run in runs)
    yield "</tr>"


def _cell(run: Run, verdict: Verdict | None) -> str:
    if verdict is None:
        return "<td></td>"
    result = verdict.result
    sign, colour, _ = _SIGNS[_mark(result)]
    words = result.verdict if result.limit is None else f"{result.verdict}, a {LIMIT}"
    words += f" {result.dirty}/{result.pages}" if result.verdict == "leaked" else ""
    told = f"<b>{sign}</b><span class=word> {_text(words)}</span>"
    if not run.is_wrong(verdict):
        title = result.limit or result.reason or words
        return f'<td class={colour} title="{_text(title)}">{told}</td>'
    return (
        f'<td class="bad {colour}" title="{_text(_instead(result))}"><a href="{_name(run, verdict)}">{told}</a></td>'
    )


# A case


def _case_page(run: Run, verdict: Verdict) -> str:
    result = verdict.result
    why = next((case.why for case in all_cases() if case.name == result.case), "")
    return _page(
        f"{result.case}: {result.verdict}",
        f"<p>{_text(why)}</p><p>{_of(run)}: <span class=leak>{_text(_instead(result))}</span></p>"
        + _look("Right after the release", verdict.alive)
        + _look("All processes gone", verdict.gone)
        + f"<p><a href='index.html#{_text(result.row)}'>all cases</a></p>",
    )


def _look(moment: str, look: Look) -> str:
    if not look.places:
        return f"<h2>{moment}: nothing was found</h2>"
    lines = "".join(
        f"<tr><td>{place['frame'] * PAGE_SIZE:#x}</td><td>{place['pairs']}</td><td>{_text(place['kind'])}</td></tr>"
        for place in look.places
    )
    more = f", the first {len(look.places)}" if look.pages > len(look.places) else ""
    return (
        f"<h2>{moment}: {look.pages} pages{more}</h2><table><thead>"
        "<tr><th>physical address</th><th>times in the page</th><th>the page is now</th></tr></thead>"
        f"<tbody>{lines}</tbody></table>"
    )


# All pages


def _mark(result: Result) -> str:
    return LIMIT if result.limit is not None else result.verdict


def _instead(result: Result) -> str:
    expected = "leaked" if result.verdict == "wiped" else result.expected
    return f"{result.verdict} instead of {expected}" + (f": {result.reason}" if result.reason else "")


def _of(run: Run) -> str:
    return f"Linux {_text(run.kernel.release)}, {_text(run.carrier.name)}"


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style><h1>{_text(title)}</h1>{body}</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)

# SPDX-License-Identifier: MIT
"""Findings for people: a table, and a page for a browser. No content of any memory is in either."""

import html
import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlockwipe.audit.finding import FAULTS, MEANINGS, Finding, Group, grouped, is_fault
from mlockwipe.audit.stacks import Stack
from mlockwipe.linux.libdw import Frame
from mlockwipe.printable import printable

_SHOWN = 5  # calls of a stack, in the table


def summary(findings: Sequence[Finding], programs: Sequence[str]) -> str:
    """One sentence. `programs`: those that have locked memory."""
    if not findings and not programs:
        return "nothing has locked memory"
    faults = sum(is_fault(finding) for finding in findings)
    rest = len(findings) - faults
    clear = f"; {rest} locked to the end, and clear" if rest else ""
    if not faults:
        names = ", ".join(os.path.basename(program) for program in programs)
        return f"nothing was left uncleared by {names}{clear}"
    total = sum(finding.bytes for finding in findings)
    ranges = f"{faults} locked range{'s were' if faults > 1 else ' was'}"
    return f"{ranges} left uncleared, lost or refused: {total} bytes that are not zero{clear}"


def print_findings(findings: Sequence[Finding], programs: Sequence[str], console: Console) -> None:
    """Each place once, the worst first; what is no fault is counted in the last line only."""
    table = Table(show_edge=False, header_style="bold")
    table.add_column("finding")
    table.add_column("bytes not zero", justify="right", no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    kinds = []
    for group in grouped(findings):
        if is_fault(group.first):
            kinds.append(group.first.kind)
            table.add_row(_title(group), _amount(group), str(group.times), _places(group.first))
            table.add_section()
    if kinds:
        console.print(table)
        for kind in dict.fromkeys(kinds):
            console.print(f"[bold]{kind}[/]: {MEANINGS[kind]}", highlight=False)
    console.print(Text(printable(f"mlockwipe audit: {summary(findings, programs)}")))


def in_words(finding: Finding) -> str:
    """One finding, in some lines of text."""
    text = f"{finding.kind} ({finding.cause}): {finding.bytes} of {finding.length} bytes are not zero\n"
    return text + _places(finding).plain


def _title(group: Group) -> Text:
    first = group.first
    return Text.assemble(
        (first.kind, "red"), f"\n{first.cause}", ("\n" + printable(os.path.basename(first.program)), "dim")
    )


def _amount(group: Group) -> str:
    if not group.pages:
        return f"0 of {group.first.length}"
    pages = f"{group.pages} page" + ("s" if group.pages > 1 else "")
    return f"{group.bytes}\nin {pages}\n{group.first.entropy:.1f} bit/byte"


def _places(finding: Finding) -> Text:
    text = Text.assemble((f"{finding.lock} ", "bold"), _told(finding.locked))
    if finding.released:
        text.append_text(Text.assemble((f"\n{finding.cause} ", "bold"), _told(finding.released)))
    if finding.reason:
        text.append_text(Text(f"\n{printable(finding.reason)}"))
    return text


def _told(stack: Stack) -> str:
    frames = _telling(stack)
    more = " < ..." if len(frames) > _SHOWN else ""
    return " < ".join(describe(frame) for frame in frames[:_SHOWN]) + more if frames else "(its place is not known)"


def _telling(stack: Stack) -> Stack:
    """Without what every stack has: the C library's function for the call, and what it does before main; and without
    what is between a line of Python and the call."""
    for depth, frame in enumerate(stack):
        if frame.module is None and frame.file is not None:
            return stack[depth:]
    own = (frame for frame in stack if frame.function != "_start" and not _is_of_c_library(frame))
    return tuple(own) or stack


def _is_of_c_library(frame: Frame) -> bool:
    return os.path.basename(frame.module or "").startswith(("libc.so", "libc-", "ld-"))


def describe(frame: Frame) -> str:
    """One call: `f (file.c:12)`, or as much of that as is known."""
    name = (frame.function or "?").partition("@")[0]
    if frame.file is not None:
        name += f" ({os.path.basename(frame.file)}:{frame.line or '?'})"
    elif frame.module:
        name += f" ({os.path.basename(frame.module)})"
    return printable(name)


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 70rem; margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .3rem; }
h2.fault { color: light-dark(#b3151f, #ff8a80); }
p { margin: .3rem 0; } ol { margin: .2rem 0 .6rem; } small { opacity: .75; }
"""


def as_page(findings: Sequence[Finding], command: Sequence[str], programs: Sequence[str]) -> str:
    """One HTML page with every place and its whole stacks."""
    name = _escaped(" ".join(command))
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>mlockwipe audit: {name}</title><style>{_STYLE}</style>",
        f"<h1>mlockwipe audit <code>{name}</code></h1><p>{_escaped(summary(findings, programs))}</p>",
    ]
    for group in grouped(findings):
        parts += _section(group)
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """For the page, in which a name may neither be markup nor change how what follows is read."""
    return html.escape(printable(text))


def _section(group: Group) -> list[str]:
    first = group.first
    fault = ' class="fault"' if first.kind in FAULTS else ""
    parts = [
        f"<h2{fault}>{first.kind}: {_escaped(first.cause)}</h2>",
        f"<p><small>{_escaped(MEANINGS[first.kind])}</small></p>",
        f"<p>{_escaped(first.program)}: {group.times} times, {group.bytes} bytes that are not zero in "
        f"{group.pages} pages, {first.entropy:.2f} bits a byte in the first</p>",
    ]
    if first.reason:
        parts.append(f"<p>{_escaped(first.reason)}</p>")
    for call, stack in ((first.lock, first.locked), (first.cause, first.released)):
        if stack:
            calls = "".join(f"<li><code>{_escaped(_whole(frame))}</code>" for frame in stack)
            parts.append(f"<details open><summary>{_escaped(call)}</summary><ol>{calls}</ol></details>")
    return parts


def _whole(frame: Frame) -> str:
    place = f" at {frame.file}:{frame.line or '?'}" if frame.file else ""
    return f"{frame.function or '?'}{place}" + (f" in {frame.module}" if frame.module else "")

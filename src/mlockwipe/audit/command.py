# SPDX-License-Identifier: MIT
"""`mlockwipe audit`."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mlockwipe.audit import FINDINGS, LEFT
from mlockwipe.audit.finding import SCHEMA, Finding, is_fault
from mlockwipe.audit.report import as_page, print_findings
from mlockwipe.linux import libdw
from mlockwipe.report_file import ReportFile
from mlockwipe.supervisor.front import run
from mlockwipe.supervisor.options import Options


def audit(command: list[str], *, fail: bool, json_file: str | None, html_file: str | None) -> int:
    """Run a command under supervision and tell what it left: its exit status, or 3 if `fail` and anything was left,
    or could not be audited.

    Raises Refused.
    """
    libdw.load()
    files = [None if path is None else ReportFile(path) for path in (json_file, html_file)]
    with tempfile.TemporaryDirectory(prefix="mlockwipe-", ignore_cleanup_errors=True) as place:
        path = Path(place, "findings")
        path.touch(mode=0o600)
        os.environ[FINDINGS] = str(path)
        status = run(Options(command, audit=str(path)))
        findings, programs, missed, damaged = read(path), locking(path), not_audited(path), is_damaged(path)
    texts = as_document(findings, command, status, programs, missed), as_page(findings, command, programs)
    for file, text in zip(files, texts, strict=True):
        if file is not None:
            file.write(text)
    if sys.stderr is not None and (status not in (125, 126, 127) or findings):
        try:
            console = Console(stderr=True)
            console = console if console.is_terminal else Console(stderr=True, width=118)
            if findings or programs or not missed:
                print_findings(findings, programs, console)
            if missed:
                print(f"mlockwipe: not audited, as said: {', '.join(missed)}", file=sys.stderr)
            if damaged:
                print("mlockwipe: the audit's notes were damaged, and some of it may be missing", file=sys.stderr)
        except OSError:  # the reader is gone, or there is no room: the status is the program's
            # The interpreter flushes stderr once more at its end, and ends with 120 if that fails again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return LEFT if fail and (damaged or missed or any(map(is_fault, findings))) else status


def read(path: Path | str, start: int = 0) -> list[Finding]:
    """The findings in a file that an auditor writes, from the byte `start` on."""
    return [line for line in _lines(path, start) if isinstance(line, Finding)]


def locking(path: Path | str) -> list[str]:
    """The programs that have locked memory, by the same file."""
    return sorted({line.name for line in _lines(path) if isinstance(line, _Program) and line.audited})


def not_audited(path: Path | str) -> list[str]:
    """The programs of which a process could not be, by the same file."""
    return sorted({line.name for line in _lines(path) if isinstance(line, _Program) and not line.audited})


def is_damaged(path: Path | str) -> bool:
    """Whether somebody else has written there, or there was no room."""
    return not os.path.exists(path) or None in _lines(path)


@dataclass(frozen=True)
class _Program:
    """One that locks memory."""

    name: str
    audited: bool


def _lines(path: Path | str, start: int = 0) -> list[Finding | _Program | None]:
    """Each line; None for what is none of ours."""
    try:
        text = Path(path).read_bytes()[start:].decode(errors="replace")
    except FileNotFoundError:
        return []
    lines: list[Finding | _Program | None] = []
    for line in text.splitlines():
        try:
            told = json.loads(line)
            if "locks" in told or "not audited" in told:
                lines.append(_Program(told.get("locks") or told["not audited"], audited="locks" in told))
            else:
                lines.append(Finding.of_json(told))
        except (ValueError, KeyError, TypeError):
            lines.append(None)
    return lines


def as_document(
    findings: Sequence[Finding], command: Sequence[str], status: int, programs: Sequence[str], missed: Sequence[str]
) -> str:
    """The findings as JSON text. `programs`: that have locked memory. `missed`: that could not be audited."""
    document = {
        "schema": SCHEMA,
        "command": list(command),
        "status": status,
        "locking": list(programs),
        "not_audited": list(missed),
        "findings": [finding.as_json() for finding in findings],
    }
    return json.dumps(document, indent=2) + "\n"

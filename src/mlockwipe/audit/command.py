# SPDX-License-Identifier: MIT
"""`mlockwipe audit`."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
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
    """Run a command under supervision and tell what it left: its exit status, or 3 if `fail` and anything was left.

    Raises Refused.
    """
    libdw.load()
    files = [None if path is None else ReportFile(path) for path in (json_file, html_file)]
    with tempfile.TemporaryDirectory(prefix="mlockwipe-", ignore_cleanup_errors=True) as place:
        path = Path(place, "findings")
        path.touch(mode=0o600)
        os.environ[FINDINGS] = str(path)
        status = run(Options(command, audit=str(path)))
        findings, programs, damaged = read(path), locking(path), is_damaged(path)
    if sys.stderr is not None and (status not in (125, 126, 127) or findings):
        console = Console(stderr=True)
        print_findings(findings, programs, console if console.is_terminal else Console(stderr=True, width=118))
        if damaged:
            print("mlockwipe: the audit's notes were damaged, and some of it may be missing", file=sys.stderr)
    texts = as_document(findings, command, status, programs), as_page(findings, command, programs)
    for file, text in zip(files, texts, strict=True):
        if file is not None:
            file.write(text)
    return LEFT if fail and (damaged or any(map(is_fault, findings))) else status


def read(path: Path | str, start: int = 0) -> list[Finding]:
    """The findings in a file that an auditor writes, from the byte `start` on."""
    return [line for line in _lines(path, start) if isinstance(line, Finding)]


def locking(path: Path | str) -> list[str]:
    """The programs that have locked memory, by the same file."""
    return sorted({line for line in _lines(path) if isinstance(line, str)})


def is_damaged(path: Path | str) -> bool:
    """Whether somebody else has written there, or there was no room."""
    return not os.path.exists(path) or None in _lines(path)


def _lines(path: Path | str, start: int = 0) -> list[Finding | str | None]:
    """Each line: a finding, the name of a program that locks, or None for what is neither."""
    try:
        text = Path(path).read_bytes()[start:].decode(errors="replace")
    except FileNotFoundError:
        return []
    lines: list[Finding | str | None] = []
    for line in text.splitlines():
        try:
            told = json.loads(line)
            lines.append(told["locks"] if "locks" in told else Finding.of_json(told))
        except (ValueError, KeyError, TypeError):
            lines.append(None)
    return lines


def as_document(findings: Sequence[Finding], command: Sequence[str], status: int, programs: Sequence[str]) -> str:
    """The findings as JSON text."""
    document = {
        "schema": SCHEMA,
        "command": list(command),
        "status": status,
        "locking": list(programs),
        "findings": [finding.as_json() for finding in findings],
    }
    return json.dumps(document, indent=2) + "\n"

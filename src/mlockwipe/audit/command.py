# SPDX-License-Identifier: MIT
"""`mlockwipe audit`."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mlockwipe.audit.finding import SCHEMA, Finding, is_fault
from mlockwipe.audit.report import as_page, print_findings
from mlockwipe.linux import libdw
from mlockwipe.report_file import ReportFile
from mlockwipe.supervisor.front import run
from mlockwipe.supervisor.options import Options

LEFT = 3  # the exit status of --fail
FINDINGS = "MLOCKWIPE_FINDINGS"  # in the environment of what is audited: the file, which grows as things are found


def audit(command: list[str], *, fail: bool, json_file: str | None, html_file: str | None) -> int:
    """Run a command under supervision and tell what it left: its exit status, or 3 if `fail` and anything was left.

    Raises Refused.
    """
    libdw.load()
    files = [None if path is None else ReportFile(path) for path in (json_file, html_file)]
    with tempfile.TemporaryDirectory(prefix="mlockwipe-") as place:
        path = Path(place, "findings")
        path.touch(mode=0o600)
        os.environ[FINDINGS] = str(path)
        status = run(Options(command, audit=str(path)))
        findings, programs = read(path), locking(path)
    for file, text in zip(
        files, (as_document(findings, command, status, programs), as_page(findings, command, programs)), strict=True
    ):
        if file is not None:
            file.write(text)
    if status not in (125, 126, 127) or findings:
        console = Console(stderr=True)
        print_findings(findings, programs, console if console.is_terminal else Console(stderr=True, width=118))
    return LEFT if fail and any(map(is_fault, findings)) else status


def read(path: Path | str, start: int = 0) -> list[Finding]:
    """The findings in a file that an auditor writes, from the byte `start` on."""
    return [Finding.of_json(told) for told in _lines(path, start) if "kind" in told]


def locking(path: Path | str) -> list[str]:
    """The programs that have locked memory, by the same file."""
    return sorted({told["locks"] for told in _lines(path) if "locks" in told})


def _lines(path: Path | str, start: int = 0) -> Iterator[dict[str, Any]]:
    return map(json.loads, Path(path).read_bytes()[start:].decode().splitlines())


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

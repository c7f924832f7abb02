# SPDX-License-Identifier: MIT
"""Running a command under supervision, with an auditor, and reporting what it has found."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from mlockwipe.audit import FINDINGS, LEFT
from mlockwipe.audit.auditor import Auditor
from mlockwipe.audit.finding import SCHEMA, Finding, is_fault
from mlockwipe.audit.findings_file import is_damaged, locking, not_audited, read
from mlockwipe.audit.presentation import as_page, print_findings
from mlockwipe.errors import Refused
from mlockwipe.linux import libdw
from mlockwipe.messages import tell
from mlockwipe.report_file import ReportFile
from mlockwipe.supervisor.front import run
from mlockwipe.supervisor.options import Options


def audit(
    command: list[str], *, fail: bool, json_file: str | None, html_file: str | None, with_arguments: bool = False
) -> int:
    """Run a command under supervision and tell what it left: its exit status, or 3 if `fail` and anything was left,
    or could not be audited.

    Raises Refused.
    """
    try:
        libdw.load()
    except ImportError:
        raise Refused("call stacks need libdw.so.1 of elfutils: apt-get install libdw1") from None
    files = [None if path is None else ReportFile(path) for path in (json_file, html_file)]
    with tempfile.TemporaryDirectory(prefix="mlockwipe-", ignore_cleanup_errors=True) as place:
        path = Path(place, "findings")
        path.touch(mode=0o600)
        os.environ[FINDINGS] = str(path)
        options = Options(command, watch=partial(Auditor, str(path)), with_arguments=with_arguments)
        options.files = tuple(file for file in files if file is not None)
        status = run(options)
        findings, programs, missed, damaged = read(path), locking(path), not_audited(path), is_damaged(path)
    texts = as_document(findings, options.told, status, programs, missed), as_page(findings, options.told, programs)
    for file, text in zip(files, texts, strict=True):
        if file is not None:
            try:
                file.write(text)
            except Refused as refused:  # the status is the program's
                tell(str(refused))
    if sys.stderr is not None and (status not in (125, 126, 127) or findings):
        try:
            console = Console(stderr=True)
            console = console if console.is_terminal else Console(stderr=True, width=118)
            if findings or programs or not missed:
                print_findings(findings, programs, console)
            if missed:
                tell(f"not audited, as said: {', '.join(missed)}")
            if damaged:
                tell("the audit's notes were damaged, and some of it may be missing")
        except OSError:  # the reader is gone, or there is no room: the status is the program's
            # The interpreter flushes stderr once more at its end, and ends with 120 if that fails again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return LEFT if fail and (damaged or missed or any(map(is_fault, findings))) else status


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

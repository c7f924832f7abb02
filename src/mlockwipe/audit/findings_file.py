# SPDX-License-Identifier: MIT
"""The file to which an auditor appends what it finds, a line each, as its readers see it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from mlockwipe.audit.finding import Finding


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

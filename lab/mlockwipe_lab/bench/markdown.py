# SPDX-License-Identifier: MIT
"""A table for a terminal as one for a document."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text


def as_markdown(table: Table) -> str:
    """Title, cells and caption, as GitHub's Markdown has them."""
    rows = zip(*([column.header, *column.cells] for column in table.columns), strict=True)
    lines = [_line(next(rows)), _line("---:" if column.justify == "right" else "---" for column in table.columns)]
    parts = [_plain(table.title), "\n".join([*lines, *map(_line, rows)]), _plain(table.caption)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(cells: Iterable[object]) -> str:
    plain = (_plain(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(plain)} |"


def _plain(content: object) -> str:
    """Without rich's markup, in one line."""
    text = Text.from_markup(content).plain if isinstance(content, str) else str(content or "")
    return " ".join(text.split())

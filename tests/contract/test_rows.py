# SPDX-License-Identifier: MIT
"""A row of docs/contract.md, the files of its cases and its cases are found by one another's names."""

import re
from pathlib import Path

import pytest

from mlockwipe.contract import cases
from mlockwipe.contract.cases import all_cases

TEXT = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()
ROWS = re.findall(r"^\| ([WL]\d+) \|", TEXT, re.MULTILINE)
FILES = sorted(path.stem for path in Path(cases.__path__[0]).glob("*.py") if path.stem != "__init__")


def prefix(row: str) -> str:
    """W7: w07_."""
    return f"{row[0].lower()}{row[1:]:0>2}_"


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_file_with_its_cases(row: str) -> None:
    homes = {case.module.rpartition(".")[2] for case in all_cases() if case.row == row}
    assert homes, f"no case of {row}"
    assert {home for home in homes if not home.startswith(prefix(row))} == set()


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_cases_of_a_row(file: str) -> None:
    assert file.startswith(tuple(prefix(row) for row in ROWS))
    assert file in {case.module.rpartition(".")[2] for case in all_cases()}


def test_every_case_is_of_a_row() -> None:
    assert {case.row for case in all_cases()} == set(ROWS)

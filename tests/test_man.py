# SPDX-License-Identifier: MIT
"""The manual pages: one for each verb, that man accepts without a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlockwipe.verbs import VERBS

SCRIPT = Path(__file__).parents[1] / "tools" / "man.py"
PAGES = ["mlockwipe", *(f"mlockwipe-{verb}" for verb in VERBS)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, str(SCRIPT), str(place)], check=True)
    return place


def test_there_is_one_for_each_verb(pages: Path) -> None:
    assert sorted(page.name for page in pages.iterdir()) == sorted(f"{name}.1" for name in PAGES)


@pytest.mark.needs_program("man", "man-db")
@pytest.mark.needs_program("groff", "groff-base")
@pytest.mark.parametrize("name", PAGES)
def test_it_is_shown_without_a_warning(name: str, pages: Path) -> None:
    shown = subprocess.run(
        ["man", "--warnings", "-l", str(pages / f"{name}.1")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MANWIDTH": "300"},
    )
    assert shown.stderr == ""
    text = " ".join(shown.stdout.split())
    assert f"NAME {name} - " in text
    assert "EXAMPLES mlockwipe " in text

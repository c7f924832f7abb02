# SPDX-License-Identifier: MIT
"""The cheap part of mlockwipe_lab.kernel_checks.quality, on the sources that are in the cache."""

from pathlib import Path

import pytest

from mlockwipe.kernel.build import debian_source
from mlockwipe.kernel.series import SERIES
from mlockwipe_lab.kernel_checks.quality import am, checkpatch

pytestmark = [
    pytest.mark.needs_program("git", "git"),
    pytest.mark.needs_program("perl", "perl"),
    pytest.mark.needs_program("xz", "xz-utils"),
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize(
    "series", [pytest.param(series, marks=pytest.mark.needs_debians_linux(series)) for series in SERIES]
)
def test_git_am_and_checkpatch_take_the_series(series: str, tmp_path: Path) -> None:
    tree = debian_source(series)
    am(series, tree, tmp_path)
    assert checkpatch(series, tree) == []

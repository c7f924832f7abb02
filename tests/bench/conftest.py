# SPDX-License-Identifier: MIT
"""The benchmarks' own programs, compiled once for each file of tests."""

from pathlib import Path

import pytest

from mlockwipe_lab.bench.host.__main__ import build


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("programs")
    build(directory)
    return directory

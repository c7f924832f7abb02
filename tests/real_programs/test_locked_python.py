# SPDX-License-Identifier: MIT
"""A Python with mlockall(MCL_CURRENT | MCL_FUTURE), subprocess, multiprocessing and threads."""

import os
import resource

import pytest

from mlockwipe.contract.witness import Pages
from tests.real_programs.witnessed import run_before_witness


@pytest.fixture(autouse=True)
def _limit() -> None:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if os.geteuid() != 0 and limit != resource.RLIM_INFINITY and limit < 512 << 20:
        pytest.skip(f"an interpreter can't lock itself within RLIMIT_MEMLOCK ({limit} bytes): raise it, or be root")


def test_a_locked_interpreter_works_as_bare_and_is_wiped() -> None:
    bare, left = run_before_witness("locked_python.py", supervised=False)
    supervised, wiped = run_before_witness("locked_python.py", supervised=True)
    assert bare.status == 9, bare.err
    assert supervised.result == bare.result, supervised.err
    assert left == Pages(whole=1)
    assert wiped == Pages(zero=1)
    assert supervised.report["unprotected"] == []

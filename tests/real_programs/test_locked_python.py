# SPDX-License-Identifier: MIT
"""A Python with mlockall(MCL_CURRENT | MCL_FUTURE), subprocess, multiprocessing and threads."""

import pytest

from mlockwipe.contract.witness import Pages
from tests.support.witnessed import run_before_witness

pytestmark = pytest.mark.usefixtures("room_to_lock")


def test_a_locked_interpreter_works_as_bare_and_is_wiped() -> None:
    bare, left = run_before_witness("locked_python.py", supervised=False)
    supervised, wiped = run_before_witness("locked_python.py", supervised=True)
    assert bare.status == 9, bare.err
    assert supervised.result == bare.result, supervised.err
    assert left == Pages(whole=1)
    assert wiped == Pages(zero=1)
    assert supervised.report["unprotected"] == []

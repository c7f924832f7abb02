# SPDX-License-Identifier: MIT
"""Calls that replace locked memory in one step, which other threads read and write meanwhile."""

import pytest

from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import run_bare, run_supervised
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody

TIMES = "300"
AS_EVER = (0, "wrong 0, lost 0, interrupted 0\n")
kinds = pytest.mark.parametrize("kind", ["mmap", "mmap-locked", "mremap", "shmat", "refused"])
pytestmark = needs_gcc


@kinds
def test_another_thread_sees_the_old_content_or_the_new(kind: str) -> None:
    command = [compiled("replacer"), kind, TIMES]
    assert run_bare(command).result == AS_EVER
    outcome = run_supervised(command)
    assert (outcome.result, outcome.err) == (AS_EVER, "")
    wiped = outcome.report["pages_wiped"].get("mmap" if kind.startswith("mmap") else kind, 0)
    assert wiped >= (0 if kind == "refused" else int(TIMES))


@needs_nobody
@kinds
def test_so_it_is_for_an_ordinary_user(kind: str) -> None:
    with mlockwipe_for_nobody() as mlockwipe:
        outcome = run_bare([*AS_NOBODY, *mlockwipe, "run", "--", compiled("replacer"), kind, TIMES])
    assert (outcome.result, outcome.err) == (AS_EVER, "")

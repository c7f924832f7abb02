# SPDX-License-Identifier: MIT
"""Processes that share their memory without being threads of one: it is wiped when the last of them is gone."""

import pytest

from mlockwipe.contract.witness import Witness, witness
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import run_bare, run_supervised
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody

PAGES = 16
kinds = pytest.mark.parametrize("kind", ["child", "grandchild", "orphan", "parent", "sibling", "thread"])
pytestmark = needs_gcc


def command(kind: str, seen: Witness) -> list[str]:
    return [compiled("sharers"), kind, str(seen.write_end)]


@kinds
def test_who_was_made_before_the_first_lock_keeps_the_memory(kind: str) -> None:
    with witness() as seen:
        # The shell reaps the sibling, too.
        bare = run_bare(["sh", "-c", '"$@"; exit $?', "sh", *command(kind, seen)], pass_fds=(seen.write_end,))
        seen.look()
        assert (bare.result, seen.counts) == ((0, "whole\n"), (PAGES, PAGES))
    with witness() as seen:
        outcome = run_supervised(command(kind, seen), pass_fds=(seen.write_end,))
        seen.look()
        assert (outcome.result, outcome.err, seen.counts) == ((0, "whole\n"), "", (PAGES, 0))
        assert outcome.pages_wiped >= PAGES


@needs_nobody
@kinds
def test_so_it_is_for_an_ordinary_user(kind: str) -> None:
    with witness() as seen, mlockwipe_for_nobody() as mlockwipe:
        supervised = [*AS_NOBODY, *mlockwipe, "run", "--", *command(kind, seen)]
        outcome = run_bare(supervised, pass_fds=(seen.write_end,))
        seen.look()
        assert (outcome.result, outcome.err, seen.counts) == ((0, "whole\n"), "", (PAGES, 0))

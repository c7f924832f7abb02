# SPDX-License-Identifier: MIT
"""The short soak: every way to release locked memory and every death of the supervisor, some dozens of times."""

import pytest

from tests.soak import SHORT, Amount, Counts, Row, as_json, main, soak
from tests.support.c_programs import needs_gcc

pytestmark = needs_gcc

QUICK = Amount(way=3, race=3, load=1, death=1, control=2)


def test_nothing_is_left_in_any_way_to_die_and_everything_is_bare() -> None:
    rows = soak(SHORT)
    assert [row for row in rows if not row.good] == []
    assert {row.name.partition(":")[0] for row in rows} >= {"return", "kill-racing-exec", "supervisor-killed"}
    assert sum(row.supervised.trials for row in rows) > 3000


def test_rounds_are_counted_together() -> None:
    told: list[Row] = []
    rows = soak(QUICK, only="munmap", rounds=2, done=told.append)
    assert [(row.threads, row.supervised.trials, row.control.trials) for row in rows] == [(1, 6, 4), (4, 6, 4)]
    assert len(told) == 4


@pytest.mark.parametrize("trouble", ["dirty_trials", "dirty_pages", "hangs", "wrong", "left_over"])
def test_any_trouble_makes_a_row_bad(trouble: str) -> None:
    leaking = Counts(trials=2, dirty_trials=2, dirty_pages=32)
    assert Row("way", 1, Counts(trials=2, killed=1), leaking).good
    troubled = Counts(trials=2)
    setattr(troubled, trouble, 1)
    assert not Row("way", 1, troubled, leaking).good


def test_a_control_that_does_not_leak_in_every_trial_makes_a_row_bad() -> None:
    assert not Row("way", 1, Counts(trials=2), Counts(trials=2, dirty_trials=1, dirty_pages=16)).good
    assert not Row("way", 1, Counts(trials=2), Counts()).good


def test_nothing_that_was_run_is_not_good() -> None:
    assert as_json([])["good"] is False
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "no-such-way"])

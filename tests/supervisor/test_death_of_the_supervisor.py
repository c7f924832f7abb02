# SPDX-License-Identifier: MIT
"""SIGKILL to the supervisor: the program dies, its guardian wipes, and nothing is left."""

import signal

import pytest

from tests.support.c_programs import needs_gcc
from tests.support.victim import SITUATIONS, Situation, kill_supervisor, kill_victim

pytestmark = needs_gcc


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_no_page_is_left_when_the_supervisor_is_killed(situation: Situation) -> None:
    trial = kill_supervisor(situation)
    assert not trial.hung
    assert trial.left_over == {}
    assert trial.dirty == 0
    assert trial.pages >= 16
    if situation.endless:
        assert trial.status == -signal.SIGKILL
        assert "the supervisor was killed" in trial.err


@pytest.mark.parametrize("situation", [one for one in SITUATIONS if one.endless], ids=str)
def test_its_pages_are_left_when_the_program_is_killed_bare(situation: Situation) -> None:
    trial = kill_victim(situation)
    assert trial.dirty == trial.pages >= 16

# SPDX-License-Identifier: MIT
"""A helper task needs no room, no descriptors, no time and no processors that its program may lack."""

import pytest

from mlockwipe.contract.program import PAGES
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import MLOCKWIPE, run_bare
from tests.support.witnessed import run_command_before_witness

LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CPU", "max_map_count", "MCL_FUTURE")

pytestmark = needs_gcc


@pytest.mark.parametrize("limit", LIMITS)
def test_a_program_that_has_reached_a_limit_is_protected(limit: str) -> None:
    command = [compiled("tight"), limit]
    bare, pages = run_command_before_witness(command, supervised=False)
    assert (bare.status, bare.err) == (0, "")
    assert (pages.total, pages.dirty) == (PAGES, PAGES)
    outcome, pages = run_command_before_witness(command, supervised=True)
    assert (outcome.status, outcome.err) == (0, "")
    assert (pages.total, pages.dirty) == (PAGES, 0)


def test_a_supervisor_that_has_used_all_the_time_it_was_allowed_is_said_to_have() -> None:
    """Where it may not raise the hard limit: CAP_SYS_RESOURCE is needed for that."""
    command = 'ulimit -t 1; exec "$@"'
    outcome = run_bare(["sh", "-c", command, "sh", MLOCKWIPE, "run", "--", compiled("tight"), "children", "2000"])
    assert outcome.status == 0 or "was killed (it had used the 1 s of `ulimit -t`)" in outcome.err

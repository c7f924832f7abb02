# SPDX-License-Identifier: MIT
"""stress-ng, whose main process locks memory, so that all of its stressors are traced."""

from pathlib import Path

import pytest

from tests.support.running import run_bare, run_supervised

pytestmark = pytest.mark.needs_program("stress-ng", "stress-ng")

STRESSORS = {
    "mlock": ["--mlock", "1", "--mlock-ops", "40"],
    "mremap": ["--mremap", "1", "--mremap-ops", "4", "--mremap-bytes", "4M", "--mremap-mlock"],
    "munmap": ["--munmap", "1", "--munmap-ops", "20"],
    "fork": ["--fork", "1", "--fork-ops", "200"],
    "vm": ["--vm", "1", "--vm-ops", "2000", "--vm-bytes", "8M", "--vm-locked"],
}
WIPE = {"mremap", "vm"}  # those that release locked memory; mlock unlocks its own before


@pytest.mark.parametrize("stressor", STRESSORS)
def test_it_verifies_and_ends_as_bare(stressor: str, tmp_path: Path) -> None:
    command = ["stress-ng", "--quiet", "--verify", "--timeout", "60", *STRESSORS[stressor]]
    bare = run_bare(command, cwd=tmp_path)
    supervised = run_supervised(command, cwd=tmp_path)
    assert bare.status == 0, bare.out + bare.err
    assert supervised.result == bare.result, supervised.err
    assert supervised.report["processes_attached"] > 0
    assert supervised.report["unprotected"] == []
    assert (supervised.pages_wiped > 0) == (stressor in WIPE)


def test_all_of_them_at_once(tmp_path: Path) -> None:
    stressors = [argument for stressor in STRESSORS.values() for argument in stressor]
    command = ["stress-ng", "--quiet", "--verify", "--timeout", "60", *stressors]
    bare = run_bare(command, cwd=tmp_path)
    supervised = run_supervised(command, cwd=tmp_path)
    assert bare.status == 0, bare.out + bare.err
    assert supervised.result == bare.result, supervised.err
    assert supervised.report["unprotected"] == []
    assert supervised.pages_wiped > 0


def test_mmapfork_succeeds(tmp_path: Path) -> None:
    # One operation, the least, fills half of the machine's memory: it is not done a second time to see that it
    # succeeds bare.
    command = ["stress-ng", "--quiet", "--verify", "--mmapfork", "1", "--mmapfork-ops", "1"]
    outcome = run_supervised(command, cwd=tmp_path)
    assert outcome.result == (0, ""), outcome.err
    assert outcome.report["processes_attached"] > 0
    assert outcome.report["unprotected"] == []

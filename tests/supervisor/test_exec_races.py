# SPDX-License-Identifier: MIT
"""A thread executes another program while another one locks or forks: nobody stays stopped, and nobody is harmed."""

import subprocess

import pytest

from tests.support.attaching import attaching
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import TIMEOUT, run_bare, run_supervised

TIMES = "60"


@needs_gcc
@pytest.mark.parametrize("race", ["lock", "fork"])
def test_under_run(race: str) -> None:
    """A lock beside an exec had killed the program by SIGSEGV; of a fork beside one, the child stayed stopped."""
    command = [compiled("execs"), race, TIMES]
    assert run_bare(command).out == "done\n"
    outcome = run_supervised(command)
    assert (outcome.status, outcome.out, outcome.err) == (0, "done\n", "")


@needs_gcc
def test_when_attached_to() -> None:
    program = ["sh", "-c", f"echo; read line; exec {compiled('execs')} fork {TIMES}"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "\n"
            with attaching(str(process.pid)) as attachment:
                attachment.await_covered(process.pid)
                assert process.communicate("\n", timeout=TIMEOUT)[0] == "done\n"
                assert attachment.end() == 0
        finally:
            process.kill()

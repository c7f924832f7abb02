# SPDX-License-Identifier: MIT
"""Running a Python program of tests/programs before a witness."""

import sys

from mlockwipe.contract.witness import Pages, witness
from tests.support.c_programs import SOURCES
from tests.support.running import Outcome, run_bare, run_supervised


def run_before_witness(program: str, *arguments: str, supervised: bool) -> tuple[Outcome, Pages]:
    """How `program ARGUMENTS WITNESS` ended, and what the pages that it has shown held when it had."""
    with witness() as seen:
        command = [sys.executable, str(SOURCES / program), *arguments, str(seen.write_end)]
        run = run_supervised if supervised else run_bare
        outcome = run(command, pass_fds=(seen.write_end,))
        seen.look()
        return outcome, seen.pages

# SPDX-License-Identifier: MIT
"""Running a Python program of tests/programs before a witness."""

import sys
from collections.abc import Sequence

from mlockwipe.contract.witness import Pages, witness
from tests.support.c_programs import SOURCES
from tests.support.running import Outcome, run_bare, run_supervised


def run_before_witness(program: str, *arguments: str, supervised: bool) -> tuple[Outcome, Pages]:
    """How `program ARGUMENTS WITNESS` ended, and what the pages that it has shown held when it had."""
    return run_command_before_witness([sys.executable, str(SOURCES / program), *arguments], supervised=supervised)


def run_command_before_witness(
    command: Sequence[str], *, supervised: bool, arguments: Sequence[str] = ()
) -> tuple[Outcome, Pages]:
    """The same of a command that takes the witness as its last argument. `arguments`: of `mlockwipe run`."""
    with witness() as seen:
        command = [*command, str(seen.write_end)]
        if supervised:
            outcome = run_supervised(command, arguments=arguments, pass_fds=(seen.write_end,))
        else:
            outcome = run_bare(command, pass_fds=(seen.write_end,))
        seen.look()
        return outcome, seen.pages

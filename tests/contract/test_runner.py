# SPDX-License-Identifier: MIT
"""Running cases: order, carriers, and by hand from the command line."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from mlockwipe.carriers.none import NONE
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import Result
from mlockwipe.contract.runner import verify
from mlockwipe.contract.start import command
from tests.support.fakes import Wrapping, acting

BY_NAME = {case.name: case for case in all_cases()}
THREE = [BY_NAME[name] for name in ("W6-return", "W1-whole", "L1-munlock-unmap")]


def test_results_come_in_the_order_of_the_cases_and_of_the_carriers() -> None:
    wiped = acting("show(ZEROS)")
    heard: list[tuple[str, str]] = []

    def hear(carrier: str, result: Result) -> None:
        heard.append((carrier, result.case))

    results = verify([NONE, wiped], cases=THREE, jobs=3, on_result=hear)
    assert list(results) == ["none", "acting"]
    assert [result.verdict for result in results["none"]] == ["leaked", "leaked", "kept"]
    assert [result.verdict for result in results["acting"]] == ["wiped", "wiped", "damaged"]
    names = [case.name for case in THREE]
    assert heard == [("none", name) for name in names] + [("acting", name) for name in names]


def test_the_carrier_is_given_the_command_of_the_case() -> None:
    given: list[list[str]] = []

    def wrap(argv: Sequence[str]) -> list[str]:
        given.append([*argv])
        return [*argv]

    verify([Wrapping("spy", wrap)], cases=THREE[:1])
    (argv,) = given
    assert argv[:-2] == command(THREE[0])[:-2]
    assert all(int(descriptor) > 2 for descriptor in argv[-2:])


def test_a_case_runs_without_a_judge() -> None:
    assert command(THREE[0])[-2:] == ["-1", "-1"]
    for case in THREE:
        subprocess.run(command(case), check=True)


def by_hand(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mlockwipe.contract", *arguments], capture_output=True, text=True, check=False
    )


def test_one_case_by_hand() -> None:
    run = by_hand("W6-return")
    assert run.returncode == 0
    assert "W6-return" in run.stdout
    assert "leaked 16/16" in run.stdout


def test_a_row_by_hand_under_a_command() -> None:
    """`env` wipes nothing, and is no negative control: so the row is not as it must be."""
    run = by_hand("W4", "--", "env", "--")
    assert run.returncode == 1
    assert run.stdout.count("leaked") >= len([case for case in all_cases() if case.row == "W4"])
    assert "env:" in run.stdout


def test_the_list() -> None:
    run = by_hand("--list")
    assert run.returncode == 0
    listed = [line.split()[0] for line in run.stdout.splitlines()]
    assert listed == list(BY_NAME)


@pytest.mark.parametrize("name", ["W1-nothing", "W99"])
def test_a_case_that_does_not_exist(name: str) -> None:
    run = by_hand(name)
    assert run.returncode == 2
    assert name in run.stderr
    assert "Traceback" not in run.stderr


def test_the_program_of_a_case_loads_little() -> None:
    """dataclasses, typing, re and json cost more time than most cases need in all."""
    script = (
        "import sys, mlockwipe.contract.cases.w07_killed, mlockwipe.contract.run_case; "
        "print({'dataclasses', 'typing', 're', 'json', 'pathlib', 'subprocess', 'rich'} & set(sys.modules))"
    )
    paths = f"import sys; sys.path = {sys.path!r}; "
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", paths + script], capture_output=True, text=True, check=True
    )
    assert run.stdout == "set()\n"

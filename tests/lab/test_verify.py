# SPDX-License-Identifier: MIT
"""A short selection of cases in real guests: what leaks, what is wiped, what is kept, and who is convicted."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.case import Case
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import Result
from mlockwipe_lab.matrix.judge import Look, Run, Verdict, _is_of_chance, verify, verify_one
from mlockwipe_lab.vm.kernels import Kernel, kernel
from tests.support.wrong_supervisors import prefix

pytestmark = [
    pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86"),
    pytest.mark.needs_program("busybox", "busybox-static"),
    pytest.mark.needs_program("depmod", "kmod"),
    pytest.mark.timeout(600),
]

WIPED = ("W1-whole", "W6-return", "W7-sigkill-busy", "W8-child", "W12-shared-parent-last", "W13-unmap-part")
KEPT = ("L1-munlock-exit", "L2-shared-exit", "L4-parent-after-child")


def chosen(*names: str) -> list[Case]:
    return [case for case in all_cases() if case.name in names]


@pytest.fixture(scope="module")
def debian() -> Kernel:
    return kernel("debian-6.1")


@pytest.fixture(scope="module")
def runs(debian: Kernel) -> Iterator[dict[str, Run]]:
    carriers = [CARRIERS[name] for name in ("none", "init_on_free", "supervisor")]
    (here,) = verify([debian], carriers, chosen(*WIPED, *KEPT))
    yield {run.carrier.name: run for run in here}


def verdicts(run: Run) -> dict[str, str]:
    assert run.failed is None, run.console[-3000:]
    return {result.case: result.verdict for result in run.results}


def test_every_name_is_a_case() -> None:
    assert len(chosen(*WIPED, *KEPT)) == len(WIPED) + len(KEPT)


def test_without_a_carrier_every_secret_is_found(runs: dict[str, Run]) -> None:
    assert verdicts(runs["none"]) == dict.fromkeys(WIPED, "leaked") | dict.fromkeys(KEPT, "kept")
    assert runs["none"].ok
    assert runs["none"].console == ""


def test_the_supervisor_leaves_nothing_and_takes_nothing_else(runs: dict[str, Run]) -> None:
    assert verdicts(runs["supervisor"]) == dict.fromkeys(WIPED, "wiped") | dict.fromkeys(KEPT, "kept")
    assert runs["supervisor"].ok


def test_init_on_free_misses_a_part_of_a_huge_page_and_wipes_what_was_unlocked(runs: dict[str, Run]) -> None:
    found = verdicts(runs["init_on_free"])
    assert found["W1-whole"] == "wiped"
    assert found["W13-unmap-part"] == "leaked"
    assert found["L1-munlock-exit"] == "damaged"


def test_a_carrier_that_wipes_too_much_or_nothing_is_convicted(debian: Kernel) -> None:
    wipes_all = replace(CARRIERS["init_on_free"], name="wipes-all", limits={})
    wipes_nothing = replace(CARRIERS["none"], name="wipes-nothing")
    too_much = verify_one(debian, wipes_all, chosen("L1-munlock-exit"))
    nothing = verify_one(debian, wipes_nothing, chosen("W1-whole"))
    assert verdicts(too_much) == {"L1-munlock-exit": "damaged"}
    assert verdicts(nothing) == {"W1-whole": "leaked"}
    assert not too_much.ok
    assert not nothing.ok
    assert "Linux version 6.1" in nothing.console


@pytest.mark.parametrize(
    ("fault", "convicts"),
    [("wipes_files", "L2-shared-exit"), ("wipes_frames", "L4-parent-after-child")],
)
def test_a_supervisor_that_wipes_what_must_stay_is_convicted(debian: Kernel, fault: str, convicts: str) -> None:
    carrier = replace(CARRIERS["supervisor"], name=fault, prefix=prefix(fault), limits={})
    run = verify_one(debian, carrier, chosen("W6-return", convicts))
    assert verdicts(run) == {"W6-return": "wiped", convicts: "damaged"}
    assert not run.ok


def test_a_control_that_finds_nothing_makes_the_judge_blind(runs: dict[str, Run]) -> None:
    run = runs["none"]
    blind = replace(run, verdicts=[v for v in run.verdicts if v.result.row != "W1"])
    assert blind.ok
    missed = [replace(v, result=replace(v.result, verdict="unproven")) for v in run.verdicts if v.result.row == "W1"]
    assert replace(run, verdicts=missed).blind_rows == ["W1"]
    assert not replace(run, verdicts=missed).ok


@pytest.mark.parametrize(
    ("carrier", "verdict", "lost", "limit", "again"),
    [
        ("none", "wiped", False, None, True),
        ("none", "leaked", False, None, False),
        ("none", "damaged", True, None, True),
        ("none", "damaged", False, None, False),  # a program has seen it
        ("supervisor", "wiped", False, None, False),
        ("supervisor", "leaked", False, None, False),
        ("supervisor", "damaged", True, None, True),
        ("supervisor", "damaged", False, None, False),
        ("module", "leaked", False, None, False),
        ("init_on_free", "leaked", False, None, False),
        ("init_on_free", "damaged", True, "it can't", False),
    ],
)
def test_only_what_may_be_of_chance_is_judged_again(
    carrier: str, verdict: str, lost: bool, limit: str | None, again: bool
) -> None:
    result = Result("L1-munlock-unmap", "L1", verdict, "kept", 16, 3, None, limit)
    assert _is_of_chance(CARRIERS[carrier], Verdict(result, Look(3, []), Look(0, []), 1.0, lost)) is again

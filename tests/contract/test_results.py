# SPDX-License-Identifier: MIT
"""What is made of verdicts: whether they are as they must be, the JSON, the table."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from mlockwipe.contract.case import KEPT, WIPED
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import Result, as_expected, to_json
from mlockwipe.contract.verdict_table import ROWS, print_table

VERDICTS = ["wiped", "kept", "leaked", "damaged", "needs-ram-scan", "failed"]


def result(verdict: str, expected: str, name: str = "W7-segv", reason: str | None = None) -> Result:
    return Result(name, name.partition("-")[0], verdict, expected, 16, 16 if verdict == "leaked" else 0, reason)


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("expected", [WIPED, KEPT])
def test_a_carrier_has_to_do_what_the_contract_says(verdict: str, expected: str) -> None:
    assert result(verdict, expected).ok == (verdict == expected)
    assert as_expected("supervisor", [result(verdict, expected)]) == (verdict == expected)


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize(("expected", "bare"), [(WIPED, "leaked"), (KEPT, "kept")])
def test_without_a_carrier_every_secret_has_to_leak(verdict: str, expected: str, bare: str) -> None:
    assert result(verdict, expected).passes("none") == (verdict == bare)
    assert as_expected("none", [result(verdict, expected)]) == (verdict == bare)


def test_one_that_is_not_as_expected_is_enough() -> None:
    good = [result("wiped", WIPED), result("kept", KEPT)]
    assert as_expected("supervisor", good)
    assert not as_expected("supervisor", [*good, result("damaged", KEPT)])


def test_what_needs_a_ram_scan_counts_neither_way() -> None:
    unjudged = result("needs-ram-scan", WIPED)
    assert as_expected("supervisor", [result("wiped", WIPED), unjudged])
    assert not as_expected("supervisor", [result("leaked", WIPED), unjudged])
    assert not as_expected("supervisor", [unjudged])  # nothing was judged at all
    assert not as_expected("supervisor", [])


def test_a_stated_limit_is_not_held_against_a_carrier() -> None:
    limited = replace(result("leaked", WIPED, "W11-truncated"), limit="not seen")
    assert as_expected("supervisor", [result("wiped", WIPED), limited])
    assert not limited.ok
    lines = table(supervisor=[result("wiped", WIPED), limited])
    assert "supervisor: W11-truncated: leaked, a stated limit: not seen" in lines
    assert "stated limit 1" in lines[-1]
    record = to_json({"supervisor": [limited]}, {})["carriers"]
    assert record == {
        "supervisor": [
            {
                "case": "W11-truncated",
                "row": "W11",
                "verdict": "leaked",
                "expected": "wiped",
                "pages": 16,
                "dirty": 16,
                "limit": "not seen",
            }
        ]
    }


def test_the_json_has_exactly_these_fields() -> None:
    results = {
        "none": [result("leaked", WIPED, "W7-sigkill-busy")],
        "supervisor": [result("failed", WIPED, "W7-sigkill-busy", "it did not end")],
    }
    document = json.loads(json.dumps(to_json(results, {"kernel": "6.18"})))
    assert document == {
        "schema": 1,
        "machine": {"kernel": "6.18"},
        "carriers": {
            "none": [
                {
                    "case": "W7-sigkill-busy",
                    "row": "W7",
                    "verdict": "leaked",
                    "expected": "wiped",
                    "pages": 16,
                    "dirty": 16,
                }
            ],
            "supervisor": [
                {
                    "case": "W7-sigkill-busy",
                    "row": "W7",
                    "verdict": "failed",
                    "expected": "wiped",
                    "pages": 16,
                    "dirty": 0,
                    "reason": "it did not end",
                }
            ],
        },
    }


def table(*, every_case: bool = False, **results: list[Result]) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    print_table(results, console, every_case=every_case)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_carriers_stand_side_by_side_and_are_summed_up() -> None:
    lines = table(
        none=[result("leaked", WIPED), result("kept", KEPT, "L1-munlock-exit")],
        supervisor=[result("wiped", WIPED), result("kept", KEPT, "L1-munlock-exit")],
    )
    assert lines[1].split() == ["W7", "death", "by", "signal,", "SIGKILL,", "OOM", "leaked", "1", "wiped", "1"]
    assert lines[2].strip() == ""  # between what is wiped and what is left alone
    assert lines[3].split() == ["L1", "unlocked,", "or", "never", "locked", "kept", "1", "kept", "1"]
    assert lines[-2:] == [
        "none: kept 1, leaked 1, 16 pages left behind, as the contract says",
        "supervisor: wiped 1, kept 1, as the contract says",
    ]


def test_every_case_has_a_line_when_asked_for() -> None:
    lines = table(
        every_case=True,
        none=[result("leaked", WIPED), result("kept", KEPT, "L1-munlock-exit")],
        supervisor=[result("wiped", WIPED), result("kept", KEPT, "L1-munlock-exit")],
    )
    assert lines[0].split() == ["case", "expected", "none", "supervisor"]
    assert lines[1].split() == ["W7-segv", "wiped", "leaked", "16/16", "wiped"]
    assert lines[3].split() == ["L1-munlock-exit", "kept", "kept", "kept"]


def test_every_row_of_the_contract_has_a_name() -> None:
    assert {case.row for case in all_cases()} == set(ROWS)


def test_what_went_wrong_is_explained_in_full_and_as_it_is() -> None:
    reason = "it ended with 1 instead of 0: [Errno 12] " + "a long sentence " * 20
    lines = table(supervisor=[result("failed", WIPED, reason=reason)])
    assert f"supervisor: W7-segv: failed instead of wiped: {reason}" in lines
    assert lines[-1] == "supervisor: failed 1, not as the contract says"

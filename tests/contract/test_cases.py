# SPDX-License-Identifier: MIT
"""Every case has its negative control here: bare, what must be wiped leaks and what must stay is kept."""

import re
from collections.abc import Mapping

import pytest

from mlockwipe.carriers.none import NONE
from mlockwipe.contract.case import KEPT, WIPED, Case, case
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.judge import judge, judge_by
from mlockwipe.contract.result import Result, as_expected
from mlockwipe.contract.runner import verify
from mlockwipe.contract.witness import witness
from tests.contract.test_rows import ROWS
from tests.support.fakes import patching, wiping_everything

CASES = all_cases()

# They show pages of a program that they execute, which the fake carrier does not reach.
_SHOWN_BY_A_SECOND_PROGRAM = {"W8-twice", "L1-lock-gone-after-exec"}
# Judged by what they see, and bare they see no difference.
JUDGED_BY_WITNESS = [
    case
    for case in CASES
    if case.shows and case.needs_ram_scan is None and case.name not in _SHOWN_BY_A_SECOND_PROGRAM
]


def by_name(case: Case) -> str:
    return case.name


@pytest.fixture(scope="module")
def bare_results() -> Mapping[str, Result]:
    return {result.case: result for result in verify([NONE])["none"]}


@pytest.fixture(scope="module")
def overwiped_results() -> Mapping[str, Result]:
    results = verify([wiping_everything], cases=JUDGED_BY_WITNESS)
    return {result.case: result for result in results["patching"]}


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_bare_a_secret_leaks_and_what_must_stay_stays(case: Case, bare_results: Mapping[str, Result]) -> None:
    result = bare_results[case.name]
    if result.verdict == "needs-ram-scan":
        assert result.reason
        return
    assert result.verdict == ("leaked" if case.expected == WIPED else "kept"), result.reason
    assert result.passes("none")
    if case.shows:
        assert result.pages == result.dirty > 0


@pytest.mark.parametrize("case", [case for case in JUDGED_BY_WITNESS if case.expected == WIPED], ids=by_name)
def test_a_wipe_of_the_page_reaches_the_witness(case: Case, overwiped_results: Mapping[str, Result]) -> None:
    """Or the case would call everything a leak. It may find fault with the content that it misses."""
    result = overwiped_results[case.name]
    if result.verdict == "needs-ram-scan":
        assert result.reason
        return
    assert result.dirty == 0
    assert result.pages > 0
    assert result.verdict in ("wiped", "damaged"), result.reason


@pytest.mark.parametrize("case", [case for case in JUDGED_BY_WITNESS if case.expected == KEPT], ids=by_name)
def test_a_carrier_that_wipes_too_much_is_convicted(case: Case, overwiped_results: Mapping[str, Result]) -> None:
    result = overwiped_results[case.name]
    if result.verdict == "needs-ram-scan":
        assert result.reason
        return
    assert result.verdict == "damaged"


def test_the_whole_contract_bare_is_as_expected(bare_results: Mapping[str, Result]) -> None:
    assert as_expected("none", bare_results.values())
    assert not as_expected("supervisor", bare_results.values())


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_put_to_the_test_by_witness(row: str, bare_results: Mapping[str, Result]) -> None:
    verdicts = {result.verdict for result in bare_results.values() if result.row == row}
    assert verdicts & {"leaked", "kept"}


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_a_case_is_named_after_its_row_and_says_why(case: Case) -> None:
    assert case.row in ROWS
    assert re.fullmatch(rf"{case.row}(-[a-z0-9]+)+", case.name)
    assert case.expected in (WIPED, KEPT)
    assert case.why
    assert "\n" not in case.why


def test_cases_come_in_the_order_of_the_rows() -> None:
    rows = [case.row for case in CASES]
    assert list(dict.fromkeys(rows)) == ROWS
    assert rows == sorted(rows, key=ROWS.index)


def test_what_must_stay_and_is_wiped_while_the_program_lives_is_seen_by_the_program_too() -> None:
    by_name = {case.name: case for case in CASES}
    result = judge(by_name["L4-parent-after-child"], wiping_everything)
    assert result.verdict == "damaged"


def test_a_case_that_may_not_lock_as_much_as_it_needs_says_so() -> None:
    (case,) = (case for case in CASES if case.name == "W12-shared-both-exit")
    limited = patching("from mlockwipe.contract.steps import limit_locking; limit_locking(16)")
    with witness() as seen:
        result = judge_by(seen, case, limited)
    assert result.verdict == "needs-ram-scan"
    assert "ulimit -l" in (result.reason or "")


def test_two_cases_of_one_name_are_refused() -> None:
    first = CASES[0]
    with pytest.raises(ValueError, match=first.name):
        case(first.row, first.name.partition("-")[2], WIPED, "again")(first.body)

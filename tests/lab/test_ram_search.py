# SPDX-License-Identifier: MIT
"""What the guest makes of what a search of its memory has found."""

from collections.abc import Sequence
from typing import Any

import pytest

from mlockwipe.contract.case import KEPT, WIPED
from mlockwipe.contract.cases import all_cases
from mlockwipe.linux.physical import Frames
from mlockwipe_lab.matrix import ram_search
from mlockwipe_lab.matrix.ram_search import RamSearch


class NoneMapped(Frames):
    def __init__(self) -> None:
        pass

    def mappings(self, frame: int) -> int:
        return 0

    def kind(self, frame: int) -> str:
        return "kernel"  # by the time that it is asked


def looked(expected: str, late: bool, searches: Sequence[Sequence[int]]) -> tuple[set[int], int]:
    """The frames that count, of those that one search after the other finds; and how many searches were made."""
    case = next(case for case in all_cases() if case.expected == expected and case.shows)
    left = list(searches)

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        frames = left.pop(0)
        return {word: {str(frame): 1 for frame in frames} for word in question["search"]}

    eyes = RamSearch(case, late, ask, NoneMapped())
    eyes.look()
    return set(eyes.alive), len(searches) - len(left)


@pytest.mark.parametrize(
    ("expected", "late", "counts", "made"),
    [
        (WIPED, True, {2}, 2),  # 1 was wiped a moment later
        (WIPED, False, {1, 2}, 1),
        (KEPT, True, {1, 2}, 1),
    ],
)
def test_what_is_gone_a_moment_later_counts_unless_the_carrier_is_late(
    expected: str, late: bool, counts: set[int], made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ram_search, "A_MOMENT", 0)
    assert looked(expected, late, [[1, 2], [2, 3]]) == (counts, made)


@pytest.mark.parametrize(
    ("shown", "counts"),
    [
        (True, {2: 12, 3: 2}),  # what it has not shown has the second word, too
        (False, {1: 1, 2: 12, 3: 2}),
    ],
)
def test_a_case_that_marks_what_it_shows_is_judged_by_the_mark(shown: bool, counts: dict[int, int]) -> None:
    case = next(case for case in all_cases() if case.expected == WIPED and (case.needs_ram_scan is None) is shown)

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        second, third = question["search"]
        return {second: {"1": 1, "2": 10}, third: {"2": 2, "3": 2}}

    eyes = RamSearch(case, False, ask, NoneMapped())
    eyes.look()
    assert {frame: pairs for frame, (pairs, _) in eyes.alive.items()} == counts


def test_where_nothing_is_found_nothing_is_looked_for_again() -> None:
    assert looked(WIPED, True, [[], [1]]) == (set(), 1)

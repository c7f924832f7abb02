# SPDX-License-Identifier: MIT
"""A RangeSet behaves as the set of its pages."""

from hypothesis import given
from hypothesis import strategies as st

from mlockwipe.memory.ranges import RangeSet

PAGES = 24
spans = st.tuples(st.integers(0, PAGES), st.integers(0, PAGES))
steps = st.lists(st.tuples(st.sampled_from(["add", "remove"]), spans), max_size=30)


def build(operations: list[tuple[str, tuple[int, int]]]) -> tuple[RangeSet, set[int]]:
    """The same operations on a RangeSet and on a plain set of page numbers."""
    ranges, pages = RangeSet(), set[int]()
    for what, (start, end) in operations:
        if what == "add":
            ranges.add(start, end)
            pages |= set(range(start, end))
        else:
            ranges.remove(start, end)
            pages -= set(range(start, end))
    return ranges, pages


def pages_of(ranges: list[tuple[int, int]]) -> set[int]:
    return {page for start, end in ranges for page in range(start, end)}


@given(steps)
def test_it_holds_what_was_added_and_not_removed(operations: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, pages = build(operations)
    assert pages_of(list(ranges)) == pages
    assert bool(ranges) == bool(pages)


@given(steps)
def test_its_ranges_are_sorted_disjoint_and_not_adjacent(operations: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, _ = build(operations)
    bounds = [bound for one in ranges for bound in one]
    assert bounds == sorted(set(bounds))


@given(steps, spans)
def test_within_is_the_intersection(operations: list[tuple[str, tuple[int, int]]], span: tuple[int, int]) -> None:
    ranges, pages = build(operations)
    assert pages_of(ranges.within(*span)) == pages & set(range(*span))
    assert ranges.overlaps(*span) == bool(pages & set(range(*span)))


@given(steps, spans)
def test_gaps_are_the_rest(operations: list[tuple[str, tuple[int, int]]], span: tuple[int, int]) -> None:
    ranges, pages = build(operations)
    assert pages_of(ranges.gaps(*span)) == set(range(*span)) - pages


@given(steps)
def test_a_copy_is_equal_and_apart(operations: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, _ = build(operations)
    copy = ranges.copy()
    assert copy == ranges
    copy.add(PAGES + 1, PAGES + 2)
    assert copy != ranges

# SPDX-License-Identifier: MIT
"""The ledger against a model that keeps the lock of every page by itself."""

from hypothesis import given
from hypothesis import strategies as st

from mlockwipe.audit.ledger import Ledger, Lock
from mlockwipe.memory.address_space import AddressSpace

PAGE = 4096
PLACES = st.integers(0, 40)


def lock(number: int) -> Lock:
    return Lock("mlock", number, number, 0.0, ())


def pages(ledger: Ledger) -> dict[int, int]:
    found: dict[int, int] = {}
    for start, end, by in ledger:
        assert start < end
        for page in range(start // PAGE, end // PAGE):
            assert page not in found
            found[page] = by.process
    return found


OPERATIONS = st.lists(st.tuples(st.sampled_from(["add", "remove", "move"]), PLACES, st.integers(0, 12), PLACES))


@given(OPERATIONS)
def test_it_is_what_each_page_says(operations: list[tuple[str, int, int, int]]) -> None:
    ledger, model = Ledger(1, "program"), dict[int, int]()
    for number, (operation, place, length, other) in enumerate(operations):
        here = range(place, place + length)
        start, size = place * PAGE, length * PAGE
        if operation == "add":
            ledger.add(start, start + size, lock(number))
            model.update(dict.fromkeys(here, number))
        elif operation == "remove":
            ledger.remove(start, start + size)
            for page in here:
                model.pop(page, None)
        else:
            to = other * PAGE
            ledger.change([(start, start + size), (to, to + size)], [(start, start + size, to, to + size)])
            moved = {page - place + other: model.pop(page) for page in here if page in model}
            for page in range(other, other + length):
                model.pop(page, None)
            model.update(moved)
        assert pages(ledger) == model


def test_only_what_lies_within_is_told() -> None:
    ledger = Ledger(1, "program")
    ledger.add(PAGE, 4 * PAGE, lock(1))
    assert [(start, end) for start, end, _ in ledger.within(2 * PAGE, 9 * PAGE)] == [(2 * PAGE, 4 * PAGE)]
    assert ledger.within(4 * PAGE, 9 * PAGE) == []


def test_a_child_has_all_of_it_as_inherited() -> None:
    ledger, parent = Ledger(1, "program"), AddressSpace()
    ledger.add(0, PAGE, lock(1))
    child = ledger.of_child(2, parent)
    assert child.process == 2
    assert child.ancestors == (parent,)
    assert [by.inherited for _, _, by in child] == [True]
    assert [by.inherited for _, _, by in ledger] == [False]

# SPDX-License-Identifier: MIT
"""The allocator: no two secrets share a byte, freed room is used again, and pages don't pile up."""

import ctypes
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe.locked import pool as pool_module
from mlockwipe.locked.pages import LockedPages
from mlockwipe.locked.pool import GRANULE, GRANULES, LARGEST_SHARING, Pool, Slot, first_run

SIZES = st.one_of(
    st.integers(0, 100),
    st.integers(0, 3 * PAGE_SIZE),
    st.sampled_from([GRANULE, LARGEST_SHARING, LARGEST_SHARING + 1, PAGE_SIZE, PAGE_SIZE + 1]),
)


def address(slot: Slot) -> int:
    return slot.pages.address - PAGE_SIZE + slot.offset


def give_back(pool: Pool, slot: Slot, size: int) -> None:
    ctypes.memset(address(slot), 0, size)
    pool.give_back(slot)


@given(st.integers(0, (1 << 40) - 1), st.integers(1, 45))
def test_a_run_is_the_first_of_its_length(bits: int, length: int) -> None:
    text = format(bits, "b")[::-1]  # the lowest bit first
    assert first_run(bits, length) == text.find("1" * length)


class Allocations(RuleBasedStateMachine):
    """Slots are taken, written to and given back in any order. The model: a bytes object for each."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.model: dict[Slot, bytes] = {}

    slots = Bundle("slots")

    @rule(target=slots, size=SIZES, seed=st.integers(1, 255))
    def take(self, size: int, seed: int) -> Slot:
        slot = self.pool.take(size)
        assert ctypes.string_at(address(slot), size) == bytes(size)
        self.model[slot] = bytes([seed]) * size
        ctypes.memset(address(slot), seed, size)
        return slot

    @rule(slot=consumes(slots))
    def give_back(self, slot: Slot) -> None:
        give_back(self.pool, slot, len(self.model.pop(slot)))

    @invariant()
    def every_slot_holds_what_was_written(self) -> None:
        for slot, content in self.model.items():
            assert ctypes.string_at(address(slot), len(content)) == content

    @invariant()
    def nothing_lies_outside_of_its_pages(self) -> None:
        for slot, content in self.model.items():
            assert slot.pages.address <= address(slot)
            assert address(slot) + len(content) <= slot.pages.address + slot.pages.size

    @invariant()
    def a_large_one_ends_at_the_guard_page(self) -> None:
        for slot, content in self.model.items():
            if slot.shared is None:
                assert address(slot) + len(content) == slot.pages.address + slot.pages.size

    @invariant()
    def one_empty_page_is_kept_and_no_more(self) -> None:
        used = {slot.pages for slot in self.model}
        assert used <= self.pool.in_use
        assert len(self.pool.in_use - used) <= 1


Allocations.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAllocations = Allocations.TestCase


@pytest.mark.parametrize(("size", "pages"), [(1, 4), (16, 4), (32, 8), (100, 28)])
def test_a_thousand_small_secrets_share_pages(size: int, pages: int) -> None:
    pool = Pool()
    slots = [pool.take(size) for _ in range(1000)]
    assert len(pool.in_use) == pages
    for slot in slots:
        pool.give_back(slot)
    assert len(pool.in_use) == 1


def test_a_page_is_used_in_full() -> None:
    pool = Pool()
    slots = [pool.take(GRANULE) for _ in range(GRANULES)]
    assert len(pool.in_use) == 1
    assert sorted(slot.offset for slot in slots) == list(range(PAGE_SIZE, 2 * PAGE_SIZE, GRANULE))
    slots.append(pool.take(GRANULE))
    assert len(pool.in_use) == 2


def test_a_page_that_was_full_is_used_again() -> None:
    pool = Pool()
    slots = [pool.take(LARGEST_SHARING) for _ in range(2)]
    pool.take(1)  # the first page is looked at, and found full
    place = slots[0].offset
    pool.give_back(slots.pop(0))
    assert pool.take(LARGEST_SHARING).offset == place
    assert len(pool.in_use) == 2


def test_threads_do_not_get_in_each_others_way() -> None:
    pool = Pool()
    wrong: list[int] = []

    def work(number: int) -> None:
        pattern = bytes([number])
        for turn in range(150):
            taken = [(pool.take(size), size) for size in (1, 24, 200, 1000 + turn)]
            for slot, size in taken:
                if ctypes.string_at(address(slot), size) != bytes(size):
                    wrong.append(number)
                ctypes.memset(address(slot), number, size)
            for slot, size in taken:
                if ctypes.string_at(address(slot), size) != pattern * size:
                    wrong.append(number)
                give_back(pool, slot, size)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(pool.in_use) <= 1


def test_who_interrupts_an_allocation_may_allocate_and_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler or a finalizer does: at the worst moment, while a page is being made."""
    pool = Pool()
    early = pool.take(LARGEST_SHARING)
    inner: list[Slot] = []

    class Interrupted(LockedPages):
        def __init__(self, size: int) -> None:
            monkeypatch.setattr(pool_module, "LockedPages", LockedPages)
            inner.append(pool.take(16))
            pool.give_back(early)
            super().__init__(size)

    pool.take(LARGEST_SHARING)  # fills the page
    monkeypatch.setattr(pool_module, "LockedPages", Interrupted)
    outer = pool.take(LARGEST_SHARING)
    assert inner[0].shared is None
    assert outer.pages is not inner[0].pages
    assert pool.take(LARGEST_SHARING).pages is early.pages  # freed in between, and not forgotten


@pytest.mark.parametrize("begin_anew", [Pool.lose_in_child, Pool.wipe_at_exit])
def test_slots_of_before_a_fork_or_the_exit_are_not_used_again(begin_anew: Callable[[Pool], None]) -> None:
    pool = Pool()
    before = [pool.take(size) for size in (16, LARGEST_SHARING, LARGEST_SHARING, PAGE_SIZE)]
    begin_anew(pool)
    assert all(slot.pages.lost for slot in before)
    pool.give_back(pool.take(1))  # an empty page, as is kept
    for slot in before:
        pool.give_back(slot)
    assert len(pool.in_use) == 1
    after = [pool.take(size) for size in (16, LARGEST_SHARING, LARGEST_SHARING, PAGE_SIZE)]
    assert not {slot.pages for slot in before} & {slot.pages for slot in after}

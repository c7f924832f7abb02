# SPDX-License-Identifier: MIT
"""Whatever system calls a program makes, the sensitive ranges are what the kernel then holds to be locked.

The kernel is a model of it, in tests/support/mm_model.py.
"""

import errno
import os
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from mlockwipe.linux import mman
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.linux.shm import SHM_REMAP
from mlockwipe.memory.calls import Call, released
from mlockwipe.memory.mappings import NoMappings
from mlockwipe.memory.ranges import Range, RangeSet
from mlockwipe.memory.sensitive import Change, Sensitive, at_entry, at_return, return_matters
from tests.support.mm_model import SEGMENT, Model, Page

BASE = 1 << 32
PAGES = 48
HEAP = 36
LIMIT = PAGES + 24  # no call reaches beyond
UNSEEN = ("mseal", "forbid")  # what the supervisor does not hear of, and mmap without a flag that concerns it


# -- calls --------------------------------------------------------------------------------------------------------

pages = st.integers(0, PAGES - 1)
counts = st.integers(1, 10)
odds = st.sampled_from([0] * 7 + [1])  # bytes beyond a page


class Described(Call):
    """A call that hypothesis can show."""

    def __repr__(self) -> str:
        in_pages = (f"at({(word - BASE) / PAGE_SIZE:g})" if word >= BASE else f"{word:#x}" for word in self.arguments)
        return f"{self.name}({', '.join(in_pages)})"


def call(name: str, *arguments: int) -> Call:
    return Described(name, (*arguments, 0, 0, 0, 0, 0, 0)[:6])


def at(page: int) -> int:
    return BASE + page * PAGE_SIZE


def on_range(name: str, *more: st.SearchStrategy[int]) -> st.SearchStrategy[Call]:
    """A call on so many bytes from an address on."""
    return st.builds(
        lambda page, odd, count, less, *rest: call(name, at(page) + odd, count * PAGE_SIZE - less, *rest),
        pages, odds, counts, odds, *more,
    )  # fmt: skip


@st.composite
def mremaps(draw: st.DrawFn) -> Call:
    old_count = draw(st.integers(0, 10))
    new_count = draw(st.one_of(st.just(old_count), st.integers(0, 10)))
    flags = draw(
        st.sampled_from([
            0,
            mman.MREMAP_MAYMOVE,
            *[mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED] * 4,
            mman.MREMAP_MAYMOVE | mman.MREMAP_DONTUNMAP,
            mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED | mman.MREMAP_DONTUNMAP,
            mman.MREMAP_FIXED,
        ])
    )  # fmt: skip
    old = at(draw(pages)) + draw(odds)
    return call(
        "mremap", old, old_count * PAGE_SIZE, max(new_count * PAGE_SIZE - draw(odds), 0), flags, at(draw(pages))
    )


_MAPPINGS = [
    kind | how | lock
    for kind in (mman.MAP_PRIVATE, mman.MAP_SHARED)
    for how in (0, mman.MAP_FIXED, mman.MAP_FIXED_NOREPLACE)
    for lock in (0, mman.MAP_LOCKED)
]
FIXED = mman.MAP_PRIVATE | mman.MAP_FIXED
_ADVICE = st.sampled_from([mman.MADV_DONTNEED, mman.MADV_FREE, mman.MADV_DONTNEED_LOCKED])

remaps = st.sampled_from([0, SHM_REMAP])
protections = st.sampled_from([mman.PROT_READ | mman.PROT_WRITE, mman.PROT_NONE])

locks = st.one_of(
    on_range("mlock"),
    on_range("mlock2", st.integers(0, 2)),
    on_range("mmap", protections, st.just(FIXED | mman.MAP_LOCKED)),
)
calls = st.one_of(
    locks,
    on_range("munlock"),
    on_range("munmap"),
    on_range("mmap", protections, st.sampled_from(_MAPPINGS)),
    *(mremaps() for _ in range(6)),  # they have the most to go wrong
    st.builds(lambda flags: call("mlockall", flags), st.integers(0, 7)),
    st.builds(lambda: call("munlockall")),
    st.builds(lambda page, odd: call("brk", at(page) - odd), st.integers(HEAP - 1, PAGES), odds),
    st.builds(lambda page, odd, flags: call("shmat", 0, at(page) + odd, flags), pages, odds, remaps),
    on_range("madvise", _ADVICE),
    st.sampled_from([call("process_madvise", -1, 0, 1, mman.MADV_DONTNEED_LOCKED), call("forbid")]),
    on_range("mseal"),
)


def sequences(least: int, most: int) -> st.SearchStrategy[list[Call]]:
    """Half of them under MCL_FUTURE."""
    first = st.sampled_from([[], [call("mlockall", mman.MCL_FUTURE)]])
    return st.builds(lambda first, rest: first + rest, first, st.lists(calls, min_size=least, max_size=most))


# -- what they are made on ----------------------------------------------------------------------------------------

KINDS: list[Callable[[int], Page | None]] = [
    lambda origin: None,
    lambda origin: None,
    lambda origin: Page(origin),
    lambda origin: Page(origin, locked=True),
    lambda origin: Page(origin, locked=True),
    lambda origin: Page(origin, locked=True, on_fault=True),
    lambda origin: Page(origin, inaccessible=True),
    lambda origin: Page(origin, sealed=True),
    lambda origin: Page(origin, locked=True, sealed=True),
    lambda origin: Page(origin, shared=True),
    lambda origin: Page(origin, shared=True, locked=True),
    lambda origin: Page(origin, inherited=True),
    lambda origin: Page(origin, inherited=True, locked=True),
]
OWN = KINDS[:-2]
kinds = st.one_of(
    *(st.lists(st.tuples(st.sampled_from(some), st.integers(1, 5)), min_size=8, max_size=16) for some in (OWN, KINDS))
)


def build(runs: Sequence[tuple[Callable[[int], Page | None], int]]) -> tuple[Model, Sensitive]:
    """An address space with such pages, and four pages of heap."""
    model = Model(BASE, HEAP)
    model.execute(call("brk", at(HEAP + 4)))
    page = 0
    for kind, count in runs:
        origin = model.origin(count)
        for index in range(min(count, HEAP - page)):
            found = kind(origin + index)
            if found is not None:
                model.pages[page] = found
            page += 1
    sensitive = Sensitive(inherited=any(page.inherited for page in model.pages.values()))
    for number, one in model.pages.items():
        if one.locked or one.inherited:
            sensitive.ranges.add(at(number), at(number + 1))
    return model, sensitive


# -- the property -------------------------------------------------------------------------------------------------


def releases(model: Model, call: Call) -> list[Range]:
    match call.name:
        case "shmat":
            address = call.arguments[1]
            whole = call.arguments[2] & SHM_REMAP and not address % PAGE_SIZE
            return [(address, address + SEGMENT * PAGE_SIZE)] if whole else []
        case "process_madvise":
            return []
    return released(call, model.program_break, -1, os.getpid(), {os.getpid()}, model.mapped)


def is_seen(call: Call) -> bool:
    if call.name == "mmap":
        return call.arguments[3] & (mman.MAP_FIXED | mman.MAP_LOCKED) != 0
    return call.name not in UNSEEN


def expected(model: Model) -> dict[int, bool | None]:
    return {page: model.expected(page) for page in {*range(LIMIT), *model.pages}}


def perform(model: Model, sensitive: Sensitive, call: Call, meanwhile: Sequence[Call] = ()) -> None:
    """A call, with what another thread does between its end and the supervisor's look at its result."""
    if call.name == "forbid":
        model.may_lock = False
        return
    if not is_seen(call):
        model.execute(call)
        return
    before, mapped = expected(model), set(model.pages)
    entry = at_entry(sensitive, call, releases(model, call))
    sensitive.apply(entry)
    result = model.execute(call)
    if call.succeeds(result):
        for page in mapped:
            given_up = before[page] and model.expected(page) is False
            assert not (given_up and contains(sensitive, page)), (
                f"page {page} is still sensitive when another may lock it"
            )
    for other in meanwhile:
        perform(model, sensitive, other)
    if not (entry or call.locks or return_matters(sensitive, call)):
        return
    change = at_return(sensitive, call, entry, result, model)
    assert_moved_is_consistent(entry, change)
    sensitive.apply(change)


def contains(sensitive: Sensitive, page: int) -> bool:
    return sensitive.ranges.overlaps(at(page), at(page + 1))


def assert_moved_is_consistent(entry: Change, change: Change) -> None:
    for start, end, new, new_end in change.moved:
        assert not RangeSet(entry.removed).gaps(start, end)
        assert not RangeSet(change.added).gaps(new, new_end)
        assert new_end - new >= end - start > 0


def assert_right(model: Model, sensitive: Sensitive) -> None:
    assert sensitive.future == model.future
    for page, wanted in expected(model).items():
        if wanted is not None:
            assert contains(sensitive, page) == wanted, (page, model.pages.get(page), sensitive.ranges)


@settings(max_examples=600, deadline=None)
@given(kinds, sequences(6, 12))
@example([(Page, 3)], [call("mlockall", mman.MCL_FUTURE), call("mremap", at(0), 3 * PAGE_SIZE, PAGE_SIZE, 0, 0)])
@example([(Page, 3)], [call("mlockall", mman.MCL_FUTURE), call("mmap", at(0), PAGE_SIZE, mman.PROT_READ, FIXED)])
@example([(Page, 3)], [call("mlockall", mman.MCL_FUTURE), call("mremap", at(0), 3 * PAGE_SIZE, 5 * PAGE_SIZE)])
def test_what_is_sensitive_is_what_the_kernel_holds_to_be_locked(
    runs: list[tuple[Callable[[int], Page | None], int]], sequence: list[Call]
) -> None:
    model, sensitive = build(runs)
    assert_right(model, sensitive)
    for one in sequence:
        note(f"{one}")
        perform(model, sensitive, one)
        assert_right(model, sensitive)


@settings(max_examples=600, deadline=None)
@given(kinds, sequences(0, 4), calls, st.lists(locks, min_size=1, max_size=2))
@example(
    [(Page, 3)],
    [call("mlockall", mman.MCL_FUTURE)],
    call("mremap", at(0), 3 * PAGE_SIZE, 5 * PAGE_SIZE),
    [call("mlock", at(3), PAGE_SIZE)],
)
@example(
    [(Page, 3)],
    [],
    call("mremap", at(0), PAGE_SIZE, PAGE_SIZE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, at(9)),
    [call("mlock", at(9), PAGE_SIZE)],
)
@example(
    [(lambda origin: Page(origin, sealed=True), 3)],
    [call("mlockall", mman.MCL_FUTURE)],
    call("munmap", at(0), PAGE_SIZE),
    [call("mlock", at(0), PAGE_SIZE)],
)
def test_what_another_thread_locks_before_a_call_is_looked_at_stays_sensitive(
    runs: list[tuple[Callable[[int], Page | None], int]], sequence: list[Call], call: Call, meanwhile: list[Call]
) -> None:
    model, sensitive = build(runs)
    note(f"{sequence}, {call}, meanwhile {meanwhile}")
    for one in sequence:
        perform(model, sensitive, one)
    perform(model, sensitive, call, meanwhile)
    assert_right(model, sensitive)


@pytest.mark.parametrize(
    ("result", "moved"), [(0, True), (-errno.EAGAIN, True), (-errno.EEXIST, False)], ids=["all", "a part", "none"]
)
def test_what_userfaultfd_moves_is_sensitive_where_it_comes_to(result: int, moved: bool) -> None:
    page = PAGE_SIZE
    sensitive = Sensitive(RangeSet([(0, 2 * page), (17 * page, 18 * page)]), inherited=True)
    move = Call("uffdio_move", (16 * page, 0, 4 * page, 0, 0))
    entry = at_entry(sensitive, move, [])
    sensitive.apply(entry)
    sensitive.apply(at_return(sensitive, move, entry, result, NoMappings()))
    there = [(16 * page, 18 * page)] if moved else [(17 * page, 18 * page)]
    assert list(sensitive.ranges) == [(0, 2 * page), *there]

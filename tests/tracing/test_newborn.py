# SPDX-License-Identifier: MIT
"""A forked child of which no maker is known."""

import pytest

from mlockwipe.linux import procfs
from mlockwipe.memory.address_space import AddressSpace, Family
from mlockwipe.memory.ranges import RangeSet
from mlockwipe.tracing.newborn import orphan

STACK, OTHER = 0x7FFD0000, 0x7FFE0000


def space_at(stack: int, *ranges: tuple[int, int]) -> AddressSpace:
    space = AddressSpace()
    space.stack_top = stack
    space.sensitive.ranges = RangeSet(ranges)
    return space


def test_it_inherits_from_all_whose_stack_lies_where_its_own_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "stack_top", lambda _pid: STACK)
    alive, stranger = space_at(STACK, (0, 4096)), space_at(OTHER, (4096, 8192))
    gone, strangers = Family(), Family()
    gone.legacy.add(8192, 12288)
    strangers.legacy.add(12288, 16384)
    child = orphan(1, [stranger, alive], [(STACK, gone), (OTHER, strangers)], lambda space, _: space.sensitive.ranges)
    assert child.sensitive.ranges == RangeSet([(0, 4096), (8192, 12288)])
    assert child.sensitive.inherited
    assert child.family in (alive.family, gone)
    assert child.stack_top == STACK


def test_it_inherits_nothing_from_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "stack_top", lambda _pid: STACK)
    child = orphan(1, [space_at(OTHER, (0, 4096))], [], lambda space, _: space.sensitive.ranges)
    assert not child.sensitive.ranges

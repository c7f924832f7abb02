# SPDX-License-Identifier: MIT
"""What is sensitive in a program that was attached to, as far as its tasks can still be asked."""

import signal

import pytest

from mlockwipe.linux import mm
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.linux.mman import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE
from mlockwipe.linux.wait import End
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.ranges import RangeSet
from mlockwipe.supervisor.attached import Attached
from mlockwipe.supervisor.report import Report
from tests.support.traced import await_sleep, child, go_on_until

INHERITED = RangeSet([(1 << 30, (1 << 30) + PAGE_SIZE)])


def locks() -> None:
    page = mm.mmap(0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    mm.mlock(page, PAGE_SIZE)
    signal.pause()


@pytest.mark.parametrize("dead", [False, True])
def test_a_task_without_a_keeper_is_asked_as_long_as_it_lives(dead: bool) -> None:
    def asks() -> None:
        attached = Attached(Report([], None), lambda _, text: None)
        space = AddressSpace()
        space.sensitive.ranges = INHERITED.copy()
        with child((lambda: None) if dead else locks) as pid:
            if dead:
                go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
            else:
                await_sleep(pid)
            found = list(attached.sensitive(space, pid))
            assert len(found) == (1 if dead else 2)
            assert found[0] in INHERITED

    with child(asks) as pid:
        end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
        assert isinstance(end, End)
        assert end.status == 0

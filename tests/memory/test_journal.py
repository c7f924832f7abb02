# SPDX-License-Identifier: MIT
"""What the guardian finds when the supervisor is gone."""

import os

from mlockwipe.linux import procfs
from mlockwipe.linux.arch import TASK_SIZE
from mlockwipe.memory.journal import Journal, SaveArea
from mlockwipe.memory.ranges import RangeSet


def test_a_child_process_sees_what_was_written_after_the_fork() -> None:
    journal = Journal()
    child = os.fork()
    if child == 0:
        slot = journal.open(42, RangeSet([(0x1000, 0x3000)]))
        assert slot is not None
        journal.write(slot, RangeSet([(0x1000, 0x2000), (0x5000, 0x6000)]))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert journal.entries() == {42: [(0x1000, 0x2000), (0x5000, 0x6000)]}


def test_a_closed_slot_is_gone_and_used_again() -> None:
    journal = Journal()
    first = journal.open(1, RangeSet())
    assert first is not None
    journal.close(first)
    assert journal.entries() == {}
    assert journal.open(2, RangeSet([(0, 0x1000)])) == first
    assert journal.entries() == {2: [(0, 0x1000)]}


def test_more_ranges_than_a_slot_holds_become_the_whole_address_space() -> None:
    journal = Journal()
    journal.open(7, RangeSet((2 * page << 12, (2 * page + 1) << 12) for page in range(1, 1000)))
    assert journal.entries() == {7: [(0, TASK_SIZE)]}


def test_a_full_journal_gives_no_slot() -> None:
    journal = Journal()
    slots = [journal.open(pid, RangeSet()) for pid in range(1, 1030)]
    assert slots[0] is not None
    assert slots[-1] is None
    assert len(journal.entries()) == 1024


def test_the_end_of_the_program_is_known_to_the_other_side() -> None:
    journal = Journal()
    assert journal.program_end() is None
    child = os.fork()
    if child == 0:
        journal.note_end(0, os.CLD_EXITED)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert journal.program_end() == (0, os.CLD_EXITED)
    assert journal.entries() == {}


def test_room_given_back_is_clear() -> None:
    area = SaveArea()
    first, second = area.take(4096), area.take(8192)
    assert first is not None
    assert second is not None
    first[:] = b"s" * 4096
    second[:] = b"t" * 8192
    area.give_back(first)
    assert bytes(first) == bytes(4096)
    assert bytes(second) == b"t" * 8192
    area.give_back(second)
    assert bytes(second) == bytes(8192)
    assert area.take(SaveArea.SIZE) is not None


def test_there_is_no_more_room_than_there_is() -> None:
    area = SaveArea()
    assert area.take(SaveArea.SIZE + 1) is None
    assert area.take(SaveArea.SIZE) is not None
    assert area.take(4096) is None


def test_clearing_the_area_clears_what_another_process_saved() -> None:
    area = SaveArea()
    child = os.fork()
    if child == 0:
        room = area.take(4096)
        assert room is not None
        room[:] = b"s" * 4096
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    room = area.take(4096)
    assert room is not None
    assert bytes(room) == b"s" * 4096
    area.clear()
    assert bytes(room) == bytes(4096)


def resident() -> int:
    """Bytes of shared memory that this process has."""
    return int(procfs.status_field(os.getpid(), "RssShmem").split()[0]) << 10


def test_what_was_much_is_not_kept() -> None:
    area = SaveArea()
    before = resident()
    small, large = area.take(4096), area.take(64 << 20)
    assert small is not None
    assert large is not None
    large[:] = b"s" * len(large)
    assert resident() - before >= 64 << 20
    area.give_back(large)
    assert resident() - before <= 17 << 20
    assert bytes(large).count(0) == len(large)
    area.give_back(small)


def test_clearing_the_area_clears_the_end_of_what_was_much() -> None:
    area = SaveArea()
    child = os.fork()
    if child == 0:
        room = area.take(64 << 20)
        assert room is not None
        room[-4096:] = b"s" * 4096
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    area.clear()
    room = area.take(64 << 20)
    assert room is not None
    assert bytes(room).count(0) == len(room)

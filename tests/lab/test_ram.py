# SPDX-License-Identifier: MIT
"""The search of a machine's memory."""

from pathlib import Path

import pytest

from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe_lab.vm.ram import Ram

FIRST, SECOND, OTHER = 0x1122334455667788, 0x99AABBCCDDEEFF00, 0x0102030405060708
PAIR = FIRST.to_bytes(8, "little") + SECOND.to_bytes(8, "little")
SIZE = 96 << 20  # three parts that are searched at the same time


def ram_with(path: Path, content: dict[int, bytes]) -> Ram:
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at, data in content.items():
            file.seek(at)
            file.write(data)
    return Ram(path)


def test_pairs_are_counted_by_page(tmp_path: Path) -> None:
    page = PAIR * (PAGE_SIZE // 16)
    ram = ram_with(tmp_path / "ram", {5 * PAGE_SIZE: page + PAIR, 70 << 20: PAIR})
    assert ram.pairs(FIRST, [SECOND, OTHER]) == {SECOND: {5: 256, 6: 1, (70 << 20) // PAGE_SIZE: 1}, OTHER: {}}
    ram.close()


def test_pages_that_were_painted_whole_are_told_from_others(tmp_path: Path) -> None:
    """What is skipped for speed against what a plain search finds."""
    first, second, other = (word.to_bytes(8, "little") for word in (FIRST, SECOND, OTHER))
    marked = ((first + second) * 7 + first + other) * (PAGE_SIZE // 128)
    broken = bytearray(marked)
    broken[2000:2008] = bytes(8)
    shifted = b"x" + marked[:-1]
    content = {page * PAGE_SIZE: bytes(data) for page, data in enumerate((marked, broken, shifted, marked), 100)}
    ram = ram_with(tmp_path / "ram", content)
    expected: dict[int, dict[int, int]] = {SECOND: {}, OTHER: {}}
    for word in (SECOND, OTHER):
        for at in ram.find(first + word.to_bytes(8, "little")):
            pages = expected[word]
            pages[at // PAGE_SIZE] = pages.get(at // PAGE_SIZE, 0) + 1
    assert expected[SECOND][100] == 7 * 32
    assert expected[OTHER][100] == 32
    assert ram.pairs(FIRST, [SECOND, OTHER]) == expected
    ram.close()


def test_a_needle_is_found_at_any_place_and_across_pages_and_parts(tmp_path: Path) -> None:
    places = [0, 3 * PAGE_SIZE - 7, (32 << 20) - 3, (64 << 20) + 1, SIZE - 16]
    around = {place & -PAGE_SIZE: b"\1" * PAGE_SIZE for place in places}
    ram = ram_with(tmp_path / "ram", around | dict.fromkeys(places, PAIR))
    assert sorted(ram.find(PAIR)) == places
    ram.close()


def test_what_is_written_later_is_seen(tmp_path: Path) -> None:
    ram = ram_with(tmp_path / "ram", {})
    assert ram.touched == 0
    assert list(ram.find(PAIR)) == []
    with (tmp_path / "ram").open("r+b") as file:
        file.seek(50 << 20)
        file.write(PAIR)
    assert list(ram.find(PAIR)) == [50 << 20]
    ram.close()


def test_a_word_at_the_very_end_is_no_pair(tmp_path: Path) -> None:
    ram = ram_with(tmp_path / "ram", {SIZE - 8: PAIR[:8]})
    assert ram.pairs(FIRST, [SECOND]) == {SECOND: {}}
    ram.close()


def test_a_short_needle_is_refused(tmp_path: Path) -> None:
    ram = ram_with(tmp_path / "ram", {})
    with pytest.raises(ValueError, match="too short"):
        list(ram.find(b"1234567"))
    ram.close()

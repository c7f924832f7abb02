# SPDX-License-Identifier: MIT
"""What is told once, and not without end."""

from mlockwipe.supervisor.once import Once


def test_each_key_is_told_once_with_its_first_text() -> None:
    once = Once()
    assert [once.of("a", "first"), once.of("a", "second"), once.of("b", "third")] == ["first", "", "third"]


def test_the_end_of_telling_is_told_too_and_is_the_end() -> None:
    once = Once()
    assert all(once.of(str(key), "text") == "text" for key in range(100))
    assert once.of("one more", "text") == "no more is said of what goes wrong: a --report has it all"
    assert once.of("and another", "text") == once.of("0", "text") == ""

# SPDX-License-Identifier: MIT
"""Random programs come to the same bare and supervised, and leave nothing; and the fuzzer that says so can fail."""

import pytest

from tests.fuzz import SUPERVISED, fuzz, outcomes, same
from tests.support.c_programs import needs_gcc
from tests.support.fuzz_scripts import Line, Script, script
from tests.support.wrong_supervisors import prefix

pytestmark = needs_gcc

SCRIPTS = 160  # `make soak` tries others, for an hour


def found(seeds: range, prefix: tuple[str, ...] = SUPERVISED, *, shrink: bool = True) -> str:
    return "\n".join(map(str, fuzz(seeds, prefix, shrink=shrink)))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(4))
def test_random_programs_come_to_the_same_and_leave_nothing(part: int) -> None:
    length = SCRIPTS // 4
    assert found(range(part * length, (part + 1) * length)) == ""


@pytest.mark.timeout(600)
def test_they_come_to_the_same_bare_as_bare() -> None:
    assert found(range(1000, 1040), ()) == ""


def releases(call: str, *arguments: int) -> Script:
    """Locked pages are shown, and released by a call."""
    at, size = 0x100000000000, 8 * 4096
    return Script(
        "1",
        (
            Line(0, "call", ("mmap", at, size, 3, 0x32, -1, 0)),
            Line(0, "call", ("mlock", at, size)),
            Line(0, "show", (at, 8)),
            Line(0, "call", (call, at, size, *arguments)),
        ),
    )


@pytest.mark.parametrize(
    ("fault", "script"),
    [("forgets_mremap", releases("mremap", 4096, 0)), ("forgets_advice", releases("madvise", 24))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_supervisor_that_forgets_a_call_is_found_out(fault: str, script: Script) -> None:
    (bare,), (right,), (wrong,) = (outcomes([script], under) for under in ((), SUPERVISED, prefix(fault)))
    assert same(bare, right, wiped=True)
    assert not same(bare, wrong, wiped=True)


@pytest.mark.parametrize("fault", ["wipes_before_it_is_sure", "wipes_when_the_first_leaves"])
@pytest.mark.timeout(900)
def test_a_supervisor_that_wipes_too_much_is_found_out(fault: str) -> None:
    told = found(range(40), prefix(fault), shrink=False)
    assert [line for line in told.splitlines() if line.startswith("+ ") and "zero" in line], told


def test_what_was_sensitive_must_be_zero_and_all_else_as_it_was() -> None:
    for text, wiped, right in (
        (
            "3: | 1.0 sensitive gone: 1.0 | 1.1 plain gone: 1.1",
            "3: | 1.0 sensitive gone: zero | 1.1 plain gone: 1.1",
            True,
        ),
        ("3: | 1.0 sensitive gone: 1.0", "3: | 1.0 sensitive gone: 1.0", False),
        ("3: | 1.1 plain gone: 1.1", "3: | 1.1 plain gone: zero", False),
        ("3: | 1.1 unsure gone: 1.1", "3: | 1.1 unsure gone: zero", True),
        ("3: | 1.0 sensitive alive: 1.0", "3: | 1.0 sensitive alive: zero", False),
        ("3: = 0", "3: = -4", False),
        ("status 9", "status 9 hang", False),
    ):
        assert same(text, wiped, wiped=True) == right, wiped


def test_a_script_is_its_seed_s() -> None:
    assert script(7).text() == script(7).text() != script(8).text()


def test_a_script_without_some_lines_is_a_script() -> None:
    whole = script(3)
    for line in whole.all_lines():
        text = whole.without(frozenset([id(line)])).text()
        assert text.startswith("script 3") and text.endswith("done\n")

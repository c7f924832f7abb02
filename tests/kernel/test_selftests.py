# SPDX-License-Identifier: MIT
"""What is read from the kernel's own tests, and what counts as worse."""

from mlockwipe_lab.kernel_checks.selftests import Outcomes, merge, outcome, worse

SAID = """\
TAP version 13
1..4
# [RUN] Basic COW
ok 1 munmap of locked memory wipes it
not ok 2 vmsplice() at 0x7f1200001000 with size 65536
ok 3 hugetlb # SKIP no pages
# ok 4 indented by its program
"""


def test_lines_and_status_are_read() -> None:
    assert outcome({"status": 1, "said": SAID}) == {
        "munmap of locked memory wipes it": "ok",
        "vmsplice() at N with size N": "not ok",
        "hugetlb": "skip",
        "indented by its program": "ok",
        "status": "not ok (1)",
    }
    assert outcome({"status": 4, "said": ""}) == {"status": "skip"}
    assert outcome({"status": None, "said": ""}) == {"status": "not ok (None)"}


def test_a_line_that_failed_before_is_not_worse_and_one_that_passed_is() -> None:
    before = Outcomes({"cow": {"a": "ok", "b": "not ok", "c": "skip", "status": "not ok (1)"}})
    after = Outcomes({"cow": {"a": "not ok", "b": "not ok", "c": "not ok", "d": "not ok", "status": "not ok (1)"}})
    assert list(worse(before, after)) == [("cow", "a"), ("cow", "c"), ("cow", "d")]
    assert list(worse(before, before)) == []


def test_the_test_of_the_series_may_fail_nowhere_but_where_it_is_skipped() -> None:
    before = Outcomes({"mlock_wipe": {"status": "not ok (1)"}})
    assert list(worse(before, Outcomes({"mlock_wipe": {"a": "not ok"}}))) == [("mlock_wipe", "a")]


def test_what_passes_once_can_pass() -> None:
    first = Outcomes({"cow": {"a": "not ok", "b": "ok"}})
    merge(first, Outcomes({"cow": {"a": "ok", "b": "not ok", "c": "skip"}}))
    assert first.outcomes == {"cow": {"a": "ok", "b": "ok", "c": "skip"}}

# SPDX-License-Identifier: MIT
"""The pages of a run: every verdict with its sign, a way to each that is wrong, and nothing but text in them."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.contract.result import Result
from mlockwipe_lab.matrix.html import write_pages
from mlockwipe_lab.matrix.judge import Look, Run, Verdict
from mlockwipe_lab.vm.kernels import Kernel

NASTY = "<script>alert('\"&')</script>"
NOTHING = Look(0, [])
FOUND = Look(70, [{"frame": 0x1234, "pairs": 256, "kind": NASTY}] * 64)


class Page(HTMLParser):
    """The text of a page, its links and its elements."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.links += [value or "" for key, value in attributes if key == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def run(carrier: str, *results: Result, failed: str | None = None, release: str = "6.1.0-nasty") -> Run:
    kernel = Kernel("debian-6.1", release, Path("/boot/vmlinuz"), None)
    verdicts = [Verdict(result, NOTHING, FOUND if result.dirty else NOTHING, 1.0) for result in results]
    return Run(kernel, Carrier(carrier), "tcg", verdicts=verdicts, failed=failed, console=f"Oops {NASTY}")


def result(case: str, verdict: str, **more: str) -> Result:
    expected = "kept" if case.startswith("L") else "wiped"
    return Result(case, case.partition("-")[0], verdict, expected, 16, 4 if verdict == "leaked" else 0, **more)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    runs = [
        run("none", result("W1-whole", "leaked"), result("L1-munlock-exit", "kept")),
        run(
            "supervisor",
            result("W1-whole", "leaked", reason=NASTY),
            result("L1-munlock-exit", "damaged", reason=NASTY),
            result("W5-drop", "leaked", limit=NASTY),
            result("W9-hidden", "unproven", reason=NASTY),
        ),
        run(NASTY, failed=NASTY, release=f"../{NASTY}"),
    ]
    write_pages(runs, {"kernel": NASTY}, tmp_path)
    return tmp_path


def test_each_wrong_verdict_has_a_page_that_the_matrix_leads_to(place: Path) -> None:
    index = Page(place / "index.html")
    pages = {f"6.1.0-nasty-supervisor-{case}.html" for case in ("W1-whole", "L1-munlock-exit")}
    assert set(index.links) == pages
    assert {path.name for path in place.iterdir()} == pages | {"index.html"}
    for name in pages:
        assert Page(place / name).links == [f"index.html#{'W1' if 'W1' in name else 'L1'}"]


def test_every_verdict_has_a_sign(place: Path) -> None:
    text = Page(place / "index.html").text
    for told in ("✗ leaked 4/16", "= kept", "‼ damaged", "~ leaked, a stated limit 4/16", "? unproven"):
        assert told in text


def test_what_is_not_as_it_must_be_stands_on_top_of_the_matrix(place: Path) -> None:
    top, _, _ = Page(place / "index.html").text.partition("All cases")
    assert "L1-munlock-exit: damaged instead of kept" in top
    assert "Linux 6.1.0-nasty, none" in top


def test_a_page_of_a_case_tells_what_it_does_and_where_it_was_found(place: Path) -> None:
    text = Page(place / "6.1.0-nasty-supervisor-W1-whole.html").text
    assert "leaked instead of wiped" in text
    assert "All processes gone: 70 pages, the first 64" in text
    assert "0x1234000" in text


def test_whatever_is_told_stays_text(place: Path) -> None:
    for path in place.iterdir():
        page = Page(path)
        assert "script" not in page.elements
        assert NASTY in page.text


def test_a_wrong_verdict_under_an_odd_name_gets_a_file_in_the_directory(tmp_path: Path) -> None:
    write_pages([run("supervisor", result("W1-whole", "leaked"), release="../../é <x>")], {}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", ".._..____x_-supervisor-W1-whole.html"}

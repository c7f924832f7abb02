# SPDX-License-Identifier: MIT
"""How a call is named, and that no name speaks to a terminal or changes a page."""

import io

import pytest
from rich.console import Console

from mlockwipe.audit.finding import UNLOCKED, Finding
from mlockwipe.audit.presentation import as_page, describe, in_words, print_findings
from mlockwipe.linux.libdw import Frame


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame("main", "/src/wallet.c", 12, "/bin/wallet"), "main (wallet.c:12)"),
        (Frame("main", "/src/wallet.c", None, "/bin/wallet"), "main (wallet.c:?)"),
        (Frame("munmap@@GLIBC_2.2.5", None, None, "/lib/libc.so.6"), "munmap (libc.so.6)"),
        (Frame(None, None, None, None), "?"),
        (Frame("red\x1b[31m", "/a\nb.c", 1, None), r"red\x1b[31m (a\nb.c:1)"),
    ],
)
def test_a_call_is_named_by_what_is_known_and_speaks_to_no_terminal(frame: Frame, text: str) -> None:
    assert describe(frame) == text


def test_no_name_that_a_program_has_chosen_speaks_to_anybody() -> None:
    name = "\x1b]0;owned\x07\u202e<script>\udcff\n\x9b31m[red]"
    stack = (Frame(name, f"/src/{name}", 1, f"/lib/{name}"),)
    finding = Finding(
        UNLOCKED, "munlock", 0, 4096, 1, 1, 1.0, f"/bin/{name}", 1, 1, 0.0, "mlock", 1, stack, stack, reason=name
    )
    table = io.StringIO()
    print_findings([finding], [f"/bin/{name}"], Console(file=table, width=400))
    for text in (table.getvalue(), in_words(finding), as_page([finding], [f"/bin/{name}"], [f"/bin/{name}"])):
        assert r"\x1b]0;owned\x07\u202e" in text
        assert text.replace("\n", "").isprintable()
    assert "<script>" not in as_page([finding], [f"/bin/{name}"], [f"/bin/{name}"])

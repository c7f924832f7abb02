# SPDX-License-Identifier: MIT
"""How a call is named."""

import pytest

from mlockwipe.audit.presentation import describe
from mlockwipe.linux.libdw import Frame


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame("main", "/src/wallet.c", 12, "/bin/wallet"), "main (wallet.c:12)"),
        (Frame("main", "/src/wallet.c", None, "/bin/wallet"), "main (wallet.c:?)"),
        (Frame("munmap@@GLIBC_2.2.5", None, None, "/lib/libc.so.6"), "munmap (libc.so.6)"),
        (Frame(None, None, None, None), "?"),
        (Frame("red\x1b[31m", "/a\nb.c", 1, None), "red?[31m (a?b.c:1)"),
    ],
)
def test_a_call_is_named_by_what_is_known_and_speaks_to_no_terminal(frame: Frame, text: str) -> None:
    assert describe(frame) == text

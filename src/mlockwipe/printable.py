# SPDX-License-Identifier: MIT
"""Text for a terminal or a log, of which a program may have chosen a part: its path, its name, its arguments."""


def printable(text: str) -> str:
    r"""`text` with an escape (\n, \x1b, \u202e) for each character that could do more than be seen.

    That is whatever Unicode calls no graphic character: controls of either set, ends of lines, what changes the
    direction of what follows or is invisible, and bytes that are no UTF-8. It has no end of a line then.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)

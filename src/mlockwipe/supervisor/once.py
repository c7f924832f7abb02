# SPDX-License-Identifier: MIT
"""What is told to the user once, and not without end: a program that executes ever others could fill a log."""

_MOST = 100


class Once:
    """What was told, by key."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def of(self, key: str, text: str) -> str:
        """The text if it is to be told now, something else in its place, or nothing."""
        if key in self._told or len(self._told) > _MOST:
            return ""
        if len(self._told) == _MOST:
            key, text = "", "no more is said of what goes wrong: a --report has it all"
        self._told.add(key)
        return text

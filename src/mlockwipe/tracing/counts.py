# SPDX-License-Identifier: MIT
"""What was done, counted."""

from collections import Counter


class Counts:
    """`attached`: processes that were traced. `wiped`: pages, by what released them. `unprotected`: how often a
    program could not be protected, by its path and the reason."""

    def __init__(self) -> None:
        self.attached = 0
        self.wiped: Counter[str] = Counter()
        self.unprotected: Counter[tuple[str, str]] = Counter()

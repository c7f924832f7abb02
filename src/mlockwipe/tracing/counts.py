# SPDX-License-Identifier: MIT
"""What was done, counted."""

from collections import Counter


class Counts:
    """`attached`: processes that were traced. `wiped`: pages, by what released them. `unprotected`: how often a
    program could not be protected, by its path and the kind of reason."""

    def __init__(self) -> None:
        self.attached = 0
        self.wiped: Counter[str] = Counter()
        self.unprotected: Counter[tuple[str, str]] = Counter()

    def not_protected(self, program: str, reason: str) -> str:
        """Count one. Returns what is the same for all of its kind: a pid or an address would make each a new one."""
        kind = " ".join("..." if any(map(str.isdigit, word)) else word for word in reason.split(" "))
        self.unprotected[program, kind] += 1
        return f"{program} {kind}"

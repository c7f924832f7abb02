# SPDX-License-Identifier: MIT
"""What the contract has to know of whatever it judges. `mlockwipe.carriers` are such."""

from collections.abc import Sequence
from typing import Protocol

BARE = "none"  # the name of what wipes nothing: the negative control


class Candidate(Protocol):
    """A way to run a command."""

    @property
    def name(self) -> str: ...

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` so."""

    def limit(self, case: str) -> str | None:
        """Why it is known not to fulfil the case of that name; None when it has to."""

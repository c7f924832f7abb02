# SPDX-License-Identifier: MIT
"""A carrier, as far as the contract knows it: a way to run a command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

BARE = "none"  # the carrier that wipes nothing: the negative control


@dataclass(frozen=True)
class Carrier:
    """`wrap` turns an argv into the argv that runs it under the carrier."""

    name: str
    wrap: Callable[[Sequence[str]], list[str]]


def bare() -> Carrier:
    """No carrier at all."""
    return Carrier(BARE, list)

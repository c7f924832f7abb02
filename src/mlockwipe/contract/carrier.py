# SPDX-License-Identifier: MIT
"""A carrier, as far as the contract knows it: a way to run a command."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

BARE = "none"  # the carrier that wipes nothing: the negative control


@dataclass(frozen=True)
class Carrier:
    """`wrap` turns an argv into the argv that runs it under the carrier.

    `limits` are the cases that it is known not to fulfil, each with the reason that its users are told.
    """

    name: str
    wrap: Callable[[Sequence[str]], list[str]]
    limits: Mapping[str, str] = field(default_factory=dict)


def bare() -> Carrier:
    """No carrier at all."""
    return Carrier(BARE, list)

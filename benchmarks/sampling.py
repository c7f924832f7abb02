# SPDX-License-Identifier: MIT
"""Samples taken in turn, and what is made of them.

The machine is never quiet. So nothing is compared that was not measured side by side: the variants take
turns (A B, B A, A B ...), a figure is computed within each round, the result is the median of the rounds.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Times = dict[str, list[float]]
"""What a workload printed: nanoseconds, by name."""


class Rounds:
    """The times of every variant in every round."""

    def __init__(self, taken: Mapping[str, Sequence[Times]]) -> None:
        self._taken = taken

    @classmethod
    def interleave(cls, variants: Mapping[str, Callable[[], Times]], rounds: int) -> "Rounds":
        """Sample the variants in turn, after one round that does not count."""
        taken: dict[str, list[Times]] = {name: [] for name in variants}
        order = list(variants)
        for number in range(rounds + 1):
            for name in order:
                sample = variants[name]()
                if number:
                    taken[name].append(sample)
            order.reverse()
        return cls(taken)

    def of(self, variant: str, time: str) -> list[float]:
        """One value a round: the median of what was printed under that name."""
        return [statistics.median(sample[time]) for sample in self._taken[variant]]

    def ratio(self, over: str, under: str, time: str) -> list[float]:
        return [a / b for a, b in zip(self.of(over, time), self.of(under, time), strict=True)]

    def difference(self, more: str, less: str, time: str) -> list[float]:
        return [a - b for a, b in zip(self.of(more, time), self.of(less, time), strict=True)]

    def medians(self, time: str) -> dict[str, float]:
        """The median over all rounds, by variant, in nanoseconds."""
        return {variant: statistics.median(self.of(variant, time)) for variant in self._taken}


@dataclass(frozen=True)
class Figure:
    """A result with its goal. `values` has one a round, in `unit`; `times` are nanoseconds by variant."""

    name: str
    what: str
    unit: str
    values: Sequence[float]
    times: Mapping[str, float] = field(default_factory=dict)
    goal: float | None = None  # at most
    aim: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between these lies the middle half of the rounds."""
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else self.median <= self.goal

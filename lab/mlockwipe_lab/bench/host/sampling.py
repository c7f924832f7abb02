# SPDX-License-Identifier: MIT
"""Samples taken in turn, and what is made of them.

The machine is never quiet. So nothing is compared that was not measured side by side: the variants take
turns (A B, B A, A B ...), a figure is computed within each round, the result is the median of the rounds.

mlockwipe_lab.bench.statistics says how far off that may be, and how it is known.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

from mlockwipe_lab.bench.statistics import interval, quartiles, ratios

Times = dict[str, list[float]]
"""What a workload printed: nanoseconds, by name."""

Distribution = dict[float, int]
"""How many calls took at most that many nanoseconds, and longer than the bound before says."""

_STEPS = 16  # bounds between a time and twice that time: a time is told to 4.4 %


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
        return [median(sample[time]) for sample in self._taken[variant]]

    def ratio(self, over: str, under: str, time: str) -> list[float]:
        return ratios(self.of(over, time), self.of(under, time))

    def difference(self, more: str, less: str, time: str) -> list[float]:
        return [a - b for a, b in zip(self.of(more, time), self.of(less, time), strict=True)]

    def distribution(self, variant: str, time: str) -> Distribution:
        """Of all that was printed under that name in all rounds. Each bound is so many times the one before."""
        steps = Counter(
            math.ceil(math.log2(value) * _STEPS) for sample in self._taken[variant] for value in sample[time]
        )
        return {2 ** (step / _STEPS): steps[step] for step in sorted(steps)}

    def medians(self, time: str) -> dict[str, float]:
        """The median over all rounds, by variant, in nanoseconds."""
        return {variant: median(self.of(variant, time)) for variant in self._taken}


@dataclass(frozen=True)
class Figure:
    """A result with its goal. `values` has one a round, in `unit`; `times` are nanoseconds by variant. `neutral` is
    the value that says that there is no difference, None where nothing is compared. `distributions` are those of
    single calls by variant, where each was timed."""

    name: str
    what: str
    unit: str
    values: Sequence[float]
    times: Mapping[str, float] = field(default_factory=dict)
    goal: float | None = None  # at most
    aim: float | None = None
    neutral: float | None = 1.0
    distributions: Mapping[str, Distribution] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.values)

    @cached_property
    def interval(self) -> tuple[float, float]:
        return interval(self.values)

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes that there is no difference."""
        low, high = self.interval
        return self.neutral is None or not low <= self.neutral <= high

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else self.median <= self.goal


def over_bare(rounds: Rounds, name: str, what: str, time: str) -> Figure:
    """How many times as long it takes under mlockwipe as bare."""
    return Figure(name, what, "x", rounds.ratio("mlockwipe", "bare", time), rounds.medians(time))

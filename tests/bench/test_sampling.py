# SPDX-License-Identifier: MIT
"""Results and their intervals: they hold what is true about as often as they say, and differences only where there
are some."""

import io
import json
import random
import statistics
from collections.abc import Sequence

import pytest
from rich.console import Console

from mlockwipe_lab.bench.host.document import as_json
from mlockwipe_lab.bench.host.facts import Fact
from mlockwipe_lab.bench.host.figure_table import as_table
from mlockwipe_lab.bench.host.sampling import Figure, Rounds, Times, over_bare
from mlockwipe_lab.bench.statistics import interval

MACHINE: dict[str, Fact] = {
    "kernel": "6.18",
    "cpus": 2,
    "cpu": "A CPU",
    "python": "3.11",
    "load_at_start": 0.1,
    "rounds": 11,
}
NOISE = 0.03  # of a run, as on a machine that others use, too


def rounds(slower: float, count: int = 11, seed: int = 7) -> Rounds:
    """Two variants of which the second is so many times `slower`, in noise with some runs far off."""
    chance = random.Random(seed)

    def run(time: float) -> Times:
        return {"work": [time * chance.gauss(1, NOISE) * chance.choice([1] * 9 + [2])]}

    return Rounds.interleave({"bare": lambda: run(1000), "mlockwipe": lambda: run(1000 * slower)}, count)


def ratio(slower: float, **options: int) -> Figure:
    return Figure("ratio", "work", "x", rounds(slower, **options).ratio("mlockwipe", "bare", "work"))


def printed(*figures: Figure) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(as_table(MACHINE, figures))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_interval_of_equal_values_is_that_value() -> None:
    assert interval([2.5] * 11) == (2.5, 2.5)
    assert interval([2.5]) == (2.5, 2.5)


def test_an_interval_lies_around_the_median_within_what_was_seen() -> None:
    values = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 90.0]
    assert interval(values) == (1.2, 1.8)  # the third and the ninth of eleven: one that is far off doesn't matter


def test_the_same_values_have_the_same_interval() -> None:
    values = [random.Random(3).random() for _ in range(11)]
    assert interval(values) == interval(values) == interval(tuple(values))


@pytest.mark.parametrize("count", [11, 44])
@pytest.mark.parametrize(
    ("distribution", "median"), [("lognormvariate", 1.0), ("expovariate", 0.6931), ("normalvariate", 0.0)]
)
def test_the_interval_holds_the_true_median_about_as_often_as_it_says(
    distribution: str, median: float, count: int
) -> None:
    chance = random.Random(5)
    arguments = (1.0,) if distribution == "expovariate" else (0.0, 1.0)

    def holds() -> bool:
        low, high = interval([getattr(chance, distribution)(*arguments) for _ in range(count)])
        return low <= median <= high

    held = statistics.fmean(holds() for _ in range(120))
    assert 0.86 <= held <= 0.99


def test_more_rounds_make_the_interval_narrower() -> None:
    few, many = (high - low for low, high in (ratio(1.2, count=count).interval for count in (11, 99)))
    assert many < few / 2


def test_identical_variants_are_not_distinguishable() -> None:
    told = [ratio(1.0, seed=seed).distinguishable for seed in range(100)]
    assert sum(told) <= 12  # one in twenty would be perfect
    figure = ratio(1.0)
    low, high = figure.interval
    text = printed(figure)
    assert "not distinguishable" in text
    assert f"{low:.2f} .. {high:.2f}" in text
    assert f"{figure.median:.2f}x" not in text


def test_a_fifth_more_is_distinguishable() -> None:
    told = [ratio(1.2, seed=seed).distinguishable for seed in range(100)]
    assert sum(told) >= 80  # of ten runs one is far off, so some samples can't tell
    figure = ratio(1.2)
    text = printed(figure)
    assert "not distinguishable" not in text
    assert f"{figure.median:.2f}x" in text


@pytest.mark.parametrize(
    ("values", "neutral", "distinguishable"),
    [
        ([-1.0, 0.5, 2.0], 0.0, False),
        ([0.5, 1.0, 2.0], 0.0, True),
        ([0.5, 1.0, 2.0], 1.0, False),
        ([-1.0, 0.5, 2.0], None, True),
    ],
    ids=["a difference about 0", "a difference above 0", "a ratio about 1", "no comparison"],
)
def test_a_difference_is_none_where_its_interval_includes_0(
    values: Sequence[float], neutral: float | None, distinguishable: bool
) -> None:
    figure = Figure("difference", "start", "ms", values, neutral=neutral)
    assert figure.distinguishable is distinguishable
    assert ("not distinguishable" in printed(figure)) is not distinguishable


def test_what_takes_twice_as_long_as_bare_is_2() -> None:
    found = over_bare(rounds(2.0), "work", "work", "work")
    assert 1.9 < found.median < 2.1
    assert found.times["mlockwipe"] > found.times["bare"]


def test_a_goal_is_judged_by_the_median() -> None:
    values = [0.9, 1.01, 1.3]
    assert Figure("ratio", "work", "x", values, goal=1.02).reached is True
    assert Figure("ratio", "work", "x", values, goal=1.0).reached is False
    assert Figure("ratio", "work", "x", values).reached is None


def calls(*taken: float) -> Rounds:
    return Rounds.interleave({"bare": lambda: {"call_each": list(taken)}}, 2)


def test_every_call_of_every_round_is_in_the_distribution_within_its_bound() -> None:
    taken = [chance * 1000 for chance in (random.Random(2).lognormvariate(0, 2) for _ in range(300))]
    found = calls(*taken).distribution("bare", "call_each")
    assert sum(found.values()) == 2 * len(taken)
    assert list(found) == sorted(found)
    for bound in found:
        up_to = sum(calls for other, calls in found.items() if other <= bound)
        assert up_to == 2 * sum(time <= bound * (1 + 1e-9) for time in taken)


def test_a_distribution_tells_times_that_are_a_twentieth_apart_but_not_a_hundredth() -> None:
    assert len(calls(1000, 1050).distribution("bare", "call_each")) == 2
    assert list(calls(1000, 1010).distribution("bare", "call_each").values()) == [4]


def test_programs_get_the_distribution_of_single_calls() -> None:
    figure = Figure("calls", "calls", "x", [1.0], distributions={"bare": {1024.4: 3, 2048.0: 1}})
    (told,) = json.loads(as_json(MACHINE, [figure], {}))["figures"]
    assert told["calls_up_to_nanoseconds"] == {"bare": {"1024": 3, "2048": 1}}
    (told,) = json.loads(as_json(MACHINE, [ratio(1.0)], {}))["figures"]
    assert "calls_up_to_nanoseconds" not in told


def test_programs_get_the_interval_beside_the_quartiles() -> None:
    figure = ratio(1.0)
    document = json.loads(as_json(MACHINE, [figure], {}))
    assert document["schema"] == 1
    (told,) = document["figures"]
    assert told["interval"] == [round(bound, 4) for bound in figure.interval]
    assert told["distinguishable"] is False
    assert len(told["quartiles"]) == 2

# SPDX-License-Identifier: MIT
"""Wall and system time in guests: paired by round, and no ratio where there is none to tell."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from mlockwipe_lab.bench.guest.timing import TimedRun, as_timed_document, time_tables
from mlockwipe_lab.bench.guest.work import COMPARISONS, COUNTING, LOOP, WORKS, Sample, mistake, timing
from mlockwipe_lab.vm.kernels import Kernel
from tests.lab.test_bench import ON, bench, console, row, samples

COMPARISON = COMPARISONS["boot-option"]
KERNEL = Kernel("patched-6.12", "6.12.1", Path("bzImage"), None)
WORK = WORKS[0]


def run(number: int, walls: Sequence[int], systems: Sequence[int]) -> TimedRun:
    """One configuration's, a value of each a round."""
    rounds = [
        {WORK.name: Sample([wall, wall, 100 * wall], [0] * 3, [system] * 3)}
        for wall, system in zip(walls, systems, strict=True)
    ]
    return TimedRun(COMPARISON, "6.12", COMPARISON.configurations[number], KERNEL, rounds)


def printed(runs: Sequence[TimedRun], acceleration: str = "kvm") -> str:
    out = io.StringIO()
    Console(file=out, width=170).print(*time_tables(runs, acceleration))
    return out.getvalue()


NOISE = [1000, 4000, 2000, 8000, 3000, 5000, 6000]  # the machine is busier in some rounds than in others


def test_a_ratio_is_of_one_round() -> None:
    text = printed([run(0, NOISE, NOISE), run(1, [2 * one for one in NOISE], NOISE)])
    wall, system = text.split("System time")
    assert row(wall, WORK.title) == ["4 us", "2.000 (2.000..2.000)"]
    assert row(system, WORK.title) == ["4 us", "= (1.000..1.000)"]


def test_what_is_not_distinguishable_has_no_ratio() -> None:
    other = [round(one * factor) for one, factor in zip(NOISE, (1.1, 0.8, 1.2, 0.9, 1.0, 1.3, 0.7), strict=True)]
    (cell,) = row(printed([run(0, NOISE, NOISE), run(1, other, NOISE)]).split("System time")[0], WORK.title)[1:]
    assert cell.startswith("= (0.") and "..1." in cell


def test_system_time_that_is_less_than_a_tick_is_not_told() -> None:
    text = printed([run(0, NOISE, [0] * 7), run(1, NOISE, NOISE)])
    assert WORK.title in text.split("System time")[0]
    assert WORK.title not in text.split("System time")[1]


def test_an_emulated_machine_is_called_one() -> None:
    runs = [run(0, NOISE, NOISE), run(1, NOISE, NOISE)]
    assert "tell nothing of a real one" in " ".join(printed(runs, "tcg").split())
    assert "tell nothing" not in " ".join(printed(runs, "kvm").split())


def test_the_document_has_every_round() -> None:
    document = json.loads(json.dumps(as_timed_document([run(0, [3, 4], [1, 2])], {"cpu": "one"})))
    assert (document["schema"], document["unit"], document["machine"]) == (1, "nanoseconds", {"cpu": "one"})
    assert document["runs"][0]["work"] == [
        {"name": WORK.name, "wall": [[3, 3, 300], [4, 4, 400]], "system": [[1, 1, 1], [2, 2, 2]]}
    ]


def test_a_clock_that_tells_time_need_not_count_instructions() -> None:
    found = samples(ON)
    found[LOOP] = Sample([700_000], [0])
    assert mistake(found, ON, console(ON), timing("kvm", 2)) is None
    assert mistake(found, ON, console(ON), COUNTING) is not None


def test_more_system_time_than_there_is_is_a_mistake() -> None:
    found = samples(ON)
    sample = found[WORK.name]
    for cpus, system, wrong in ((2, 40_000_000, False), (1, 40_000_000, True)):
        found[WORK.name] = Sample([10_000_000] * len(sample.wiped), sample.wiped, [system] * len(sample.wiped))
        said = mistake(found, ON, console(ON), timing("kvm", cpus))
        assert said == (f"{WORK.title}: more system time than 1 CPUs have" if wrong else None)


def test_an_interval_of_few_rounds_is_not_called_one_of_95_percent() -> None:
    few, enough = (" ".join(printed([run(0, NOISE[:n], NOISE[:n])] * 2).split()) for n in (4, 5))
    assert "too few rounds for 95 %" in few
    assert "too few" not in enough


@pytest.mark.parametrize("rounds", ["0", "-1", "many", "1.5"])
def test_what_is_no_number_of_rounds_is_a_mistake_of_usage(rounds: str, tmp_path: Path) -> None:
    done = bench(tmp_path, f"--time={rounds}")
    assert done.returncode == 2
    assert f"'{rounds}' is no number of rounds" in done.stderr


def test_one_round_is_a_mistake_of_usage(tmp_path: Path) -> None:
    done = bench(tmp_path, "--time=1")
    assert done.returncode == 2
    assert "one round does not tell what is noise: take at least 2, and 5 for 95 %" in done.stderr

# SPDX-License-Identifier: MIT
"""Wall and system time of the same work, for whoever has KVM: noisy, and so told as ratios with their intervals.

The configurations are booted in turn, round after round and every other round backwards. A ratio is of one round; the
result is the median of all rounds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from mlockwipe_lab.bench.guest.work import WORKS, Comparison, Configuration, Sample, Samples
from mlockwipe_lab.bench.statistics import interval, interval_name, ratios
from mlockwipe_lab.vm.kernels import Kernel

KINDS = {"wall": "Wall time", "system": "System time"}


@dataclass(frozen=True)
class TimedRun:
    """One configuration of one kernel, and what was measured in each round."""

    comparison: Comparison
    series: str
    configuration: Configuration
    kernel: Kernel
    rounds: Sequence[Samples]

    def nanoseconds(self, kind: str, work: str) -> list[float]:
        """The median of each round. `kind`: of KINDS."""
        return [_median(samples[work], kind) for samples in self.rounds]


def _median(sample: Sample, kind: str) -> float:
    return median(sample.took if kind == "wall" else sample.system)


def time_tables(runs: Sequence[TimedRun], acceleration: str) -> Iterator[Table]:
    """Of the runs of one carrier and one series, the first of which is what the others are compared with."""
    bare, *others = runs
    how = "" if acceleration == "kvm" else " An emulated CPU: its times tell nothing of a real one."
    for kind, title in KINDS.items():
        table = Table(
            title=f"{title} with init_mlocked_on_free as a {bare.comparison.name.replace('-', ' ')} on Linux "
            f"{bare.kernel.release}, under {acceleration}",
            caption=f"Ratios to {bare.configuration.name}: the median of {len(bare.rounds)} rounds, and by bootstrap "
            f"its {interval_name(len(bare.rounds))}. '=': not distinguishable, the interval includes 1.{how}",
            caption_justify="left",
        )
        table.add_column("what")
        for run in runs:
            table.add_column(run.configuration.name, justify="right")
        for work in WORKS:
            if work.name not in bare.rounds[0]:
                continue
            base = bare.nanoseconds(kind, work.name)
            if min(base) > 0:  # system time is told in ticks, and there may be none
                told = (_ratio(run.nanoseconds(kind, work.name), base) for run in others)
                table.add_row(work.title, f"{median(base) / 1000:,.0f} us", *told)
        yield table


def _ratio(values: Sequence[float], base: Sequence[float]) -> str:
    paired = ratios(values, base)
    low, high = interval(paired)
    within = f"({low:.3f}..{high:.3f})"
    return f"= {within}" if low <= 1 <= high else f"{median(paired):.3f} {within}"


def as_timed_document(runs: Sequence[TimedRun], machine: Mapping[str, object]) -> dict[str, object]:
    """The runs, ready for json.dump: nanoseconds, a list for each round."""
    return {"schema": 1, "unit": "nanoseconds", "machine": dict(machine), "runs": [_run(run) for run in runs]}


def _run(run: TimedRun) -> dict[str, object]:
    return {
        "carrier": run.comparison.name,
        "series": run.series,
        "kernel": run.kernel.release,
        "configuration": run.configuration.name,
        "append": list(run.configuration.append),
        "work": [
            {
                "name": name,
                "wall": [list(samples[name].took) for samples in run.rounds],
                "system": [list(samples[name].system) for samples in run.rounds],
            }
            for name in run.rounds[0]
        ],
    }

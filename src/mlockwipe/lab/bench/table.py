# SPDX-License-Identifier: MIT
"""The counts for people, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from mlockwipe.lab.bench.work import CLEARING, WORKS, Carrier, Configuration, Sample, Samples
from mlockwipe.lab.kernel import Kernel

CAVEAT = (
    "Instructions of an emulated CPU, medians of {times} times. They show no cache, no DRAM, no other CPU (no IPI, "
    "no contended lock). The `rep stosq` that clears a page counts as {clearing:.0f}, for each of its 512 steps is "
    "counted; that is not the time it takes. '=': not distinguishable, the middle halves of the times overlap."
)


@dataclass(frozen=True)
class Run:
    """One configuration of one kernel. `series`: of Linux."""

    carrier: Carrier
    series: str
    configuration: Configuration
    kernel: Kernel
    samples: Samples


def print_costs(console: Console, runs: Sequence[Run]) -> None:
    """A table of the runs of one carrier and one series."""
    compared = [run.samples for run in runs[:4]]  # those that every carrier has
    _, off, on, _ = compared
    clearing = on[CLEARING]
    first = runs[0]
    bare_name, how = first.configuration.name, first.carrier.name.replace("-", " ")
    table = Table(
        title=f"What init_mlocked_on_free as a {how} costs on Linux {first.kernel.release}, in instructions",
        caption=CAVEAT.format(clearing=clearing.median, times=len(clearing.instructions)),
        caption_justify="left",
    )
    table.add_column("what")
    for column in (
        bare_name,
        "off",
        "on",
        "init_on_free",
        f"off to\n{bare_name}",
        "on to\noff",
        "on to\ninit_on_free",
        "more a page:\non",
        "\ninit_on_free",
    ):
        table.add_column(column, justify="right")
    for work in WORKS:
        if work.name not in off:
            continue
        bare, without, with_it, free = (samples[work.name] for samples in compared)
        table.add_row(
            work.title,
            *(f"{sample.median:,.0f}" for sample in (bare, without, with_it, free)),
            _percent(without, bare),
            _percent(with_it, without),
            _percent(with_it, free),
            _a_page(with_it, without, work.pages),
            _a_page(free, bare, work.pages),
        )
    console.print(table)


def _percent(one: Sample, other: Sample) -> str:
    return f"{(one.median / other.median - 1) * 100:+.2f} %" if one.differs(other) else "="


def _a_page(one: Sample, other: Sample, pages: int) -> str:
    if not pages:
        return ""
    return f"{(one.median - other.median) / pages:.0f}" if one.differs(other) else "="


def as_document(runs: Sequence[Run], machine: Mapping[str, object]) -> dict[str, object]:
    """The runs, ready for json.dump."""
    return {"schema": 1, "machine": dict(machine), "runs": [_run(run) for run in runs]}


def _run(run: Run) -> dict[str, object]:
    pages = {work.name: work.pages for work in WORKS}
    return {
        "carrier": run.carrier.name,
        "series": run.series,
        "kernel": run.kernel.release,
        "patched": run.configuration.kernel == "patched",
        "configuration": run.configuration.name,
        "append": list(run.configuration.append),
        "work": [
            {
                "name": name,
                "pages": pages.get(name, 0),
                "median": sample.median,
                "instructions": list(sample.instructions),
                "wiped": list(sample.wiped),
            }
            for name, sample in run.samples.items()
        ],
    }

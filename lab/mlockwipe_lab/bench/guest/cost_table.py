# SPDX-License-Identifier: MIT
"""The counts for people, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from mlockwipe_lab.bench.guest.work import CLEARING, PROGRAMS, WORKS, Comparison, Configuration, Sample, Samples
from mlockwipe_lab.vm.kernels import Kernel

CAVEAT = (
    "Instructions of an emulated CPU, medians of {times} times in several boots, and in % how much more it is than "
    "without. They show no cache, no DRAM, no other CPU (no IPI, no contended lock). The `rep stosq` of a page "
    "counts as {clearing:.0f}, for each of its 512 steps is counted; that is not the time it takes. '=': not "
    "distinguishable, the middle halves of the times overlap."
)

LAST_OF_MEMORY = WORKS[-len(PROGRAMS) - 1].name  # what follows are programs


@dataclass(frozen=True)
class Run:
    """One configuration of one kernel. `series`: of Linux."""

    comparison: Comparison
    series: str
    configuration: Configuration
    kernel: Kernel
    samples: Samples


def cost_table(runs: Sequence[Run]) -> Table:
    """Of the runs of one carrier and one series."""
    compared = [run.samples for run in runs[:5]]  # those that every carrier has
    bare, off, on, on_free, on_alloc = compared
    clearing = on[CLEARING]
    first = runs[0]
    table = Table(
        title=f"What init_mlocked_on_free as a {first.comparison.name.replace('-', ' ')} costs on Linux "
        f"{first.kernel.release}, in instructions",
        caption=CAVEAT.format(clearing=clearing.median, times=len(clearing.took)),
        caption_justify="left",
    )
    table.add_column("what")
    for column in (
        first.configuration.name,
        "off",
        "on",
        "init_on_free",
        "init_on_alloc",
        "on to\ninit_on_free",
        "more a page:\non",
        "\ninit_on_free",
    ):
        table.add_column(column, justify="right")
    for work in WORKS:
        name = work.name
        if name not in off:
            continue
        table.add_row(
            work.title,
            f"{bare[name].median:,.0f}",
            *(_percent(samples[name], bare[name]) for samples in (off, on, on_free, on_alloc)),
            _percent(on[name], on_free[name]),
            _a_page(on[name], off[name], work.pages),
            _a_page(on_free[name], bare[name], work.pages),
            end_section=name == LAST_OF_MEMORY,
        )
    return table


def _percent(one: Sample, other: Sample) -> str:
    return f"{(one.median / other.median - 1) * 100:+.2f} %" if one.differs(other) else "="


def _a_page(one: Sample, other: Sample, pages: int) -> str:
    if not pages:
        return ""
    return f"{(one.median - other.median) / pages:.0f}" if one.differs(other) else "="


def as_document(runs: Sequence[Run], machine: Mapping[str, object]) -> dict[str, object]:
    """The runs, ready for json.dump."""
    return {"schema": 1, "unit": "instructions", "machine": dict(machine), "runs": [_run(run) for run in runs]}


def _run(run: Run) -> dict[str, object]:
    pages = {work.name: work.pages for work in WORKS}
    return {
        "carrier": run.comparison.name,
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
                "instructions": list(sample.took),
                "wiped": list(sample.wiped),
            }
            for name, sample in run.samples.items()
        ],
    }

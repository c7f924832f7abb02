# SPDX-License-Identifier: MIT
"""The figures for people."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from mlockwipe_lab.bench.host.facts import Fact
from mlockwipe_lab.bench.host.sampling import Figure
from mlockwipe_lab.bench.statistics import interval_name

_COLUMNS = ("bare", "null tracer", "mlockwipe")


def as_table(machine: Mapping[str, Fact], figures: Sequence[Figure]) -> Table:
    table = Table(title="Costs of mlockwipe", caption=_caption(machine), caption_justify="left")
    table.add_column("what")
    rounds = min((len(figure.values) for figure in figures), default=0)
    for column in (*_COLUMNS, "result", interval_name(rounds), "goal"):
        table.add_column(column, justify="right")
    table.add_column("reached")
    for figure in figures:
        low, high = figure.interval
        table.add_row(
            figure.what,
            *(_time(figure.times.get(column)) for column in _COLUMNS),
            _value(figure.median, figure.unit) if figure.distinguishable else "not distinguishable",
            f"{_number(low)} .. {_number(high)}",
            _goal(figure),
            {True: "[green]yes", False: "[red]no", None: ""}[figure.reached],
        )
    return table


def _caption(machine: Mapping[str, Fact]) -> str:
    return (
        f"Linux {machine['kernel']}, {machine['cpus']} CPUs ({machine['cpu']}), Python {machine['python']}; "
        f"load {machine['load_at_start']} at the start. Medians; results were paired within each of "
        f"{machine['rounds']} rounds, their intervals are a bootstrap's."
    )


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    aim = f" (aim {figure.aim:g})" if figure.aim is not None else ""
    return f"<= {_value(figure.goal, figure.unit)}{aim}"


def _value(value: float, unit: str) -> str:
    return f"{_number(value)}{'' if unit == 'x' else ' '}{unit}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _time(nanoseconds: float | None) -> str:
    if nanoseconds is None:
        return ""
    for unit, size in (("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{_number(nanoseconds / size)} {unit}"
    return f"{nanoseconds:.0f} ns"

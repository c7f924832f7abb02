# SPDX-License-Identifier: MIT
"""Tables as Markdown: what stands in them, and nothing that a terminal needs."""

from rich.table import Table

from mlockwipe_lab.bench.markdown import as_markdown


def test_a_table_has_its_title_cells_and_caption() -> None:
    table = Table(title="Costs", caption="Medians.\n'=': the same")
    table.add_column("what")
    table.add_column("on to\noff", justify="right")
    table.add_row("a | b", "[green]+1 %", end_section=True)
    table.add_row("", "=")
    assert as_markdown(table) == (
        "Costs\n\n| what | on to off |\n| --- | ---: |\n| a \\| b | +1 % |\n|  | = |\n\nMedians. '=': the same\n"
    )


def test_without_title_and_rows_there_are_the_columns() -> None:
    table = Table("one", "two")
    assert as_markdown(table) == "| one | two |\n| --- | --- |\n"

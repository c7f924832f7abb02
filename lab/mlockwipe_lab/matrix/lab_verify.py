# SPDX-License-Identifier: MIT
"""`mlockwipe lab verify`: boot, judge, print, write."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console

from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.verdict_table import print_table
from mlockwipe.errors import Refused
from mlockwipe.interruption import ends_by_signal
from mlockwipe.kernel.build_progress import building
from mlockwipe.linux.mm import PAGE_SIZE
from mlockwipe.report_file import ReportFile
from mlockwipe.verify_here import machine, matching
from mlockwipe_lab.console import bars, print_failure
from mlockwipe_lab.matrix.document import as_document
from mlockwipe_lab.matrix.html import write_pages
from mlockwipe_lab.matrix.judge import Look, Run, verify
from mlockwipe_lab.vm.kernels import kernel
from mlockwipe_lab.vm.machine import check_tools

_PLACES = 4  # of a wrong verdict's pages, that are told


@ends_by_signal()
def lab_verify(
    kernels: Sequence[str],
    carriers: Sequence[str],
    pattern: str,
    *,
    every_case: bool,
    json_file: str | None,
    html: str | None,
) -> int:
    """The exit status: 0 when every run is as it must be. Raises Refused."""
    check_tools()
    cases = matching(pattern)
    chosen = [CARRIERS[name] for name in carriers]
    with building() as on_line:
        booted = [kernel(name, on_line) for name in kernels]
    file = ReportFile(json_file) if json_file else None
    pages = _directory(html) if html is not None else None

    console = Console()
    runs: list[Run] = []
    with bars(booted, chosen, len(cases)) as advance, closing(verify(booted, chosen, cases, advance)) as ended:
        for here in ended:
            runs += here
            _print(console, here, every_case)
    if file is not None:
        file.write(json.dumps(as_document(runs, machine()), indent=2) + "\n")
    if pages is not None:
        with _refusing(pages):
            write_pages(runs, machine(), pages)
    return 0 if runs and all(run.ok for run in runs) else 1


def _directory(name: str) -> Path:
    """Where the pages go, found to be writable before a machine is booted. Raises Refused."""
    path = Path(name)
    with _refusing(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / "index.html").open("a").close()
    return path


@contextmanager
def _refusing(pages: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(
            f"the pages can't be written to {pages} ({error.strerror}): name a directory that you may write"
        ) from error


def _print(console: Console, runs: Sequence[Run], every_case: bool) -> None:
    ended = [run for run in runs if run.failed is None]
    if ended:
        how = ", ".join(f"{run.carrier.name} {run.seconds:.0f} s" for run in ended)
        console.print(
            f"[bold]Linux {ended[0].kernel.release}[/], under {ended[0].acceleration}: {how}", highlight=False
        )
        print_table({run.carrier.name: run.results for run in ended}, console, every_case=every_case)
    for run in runs:
        if run.blind_rows:
            console.print(f"[bold red]the judge is blind in {', '.join(run.blind_rows)}[/]: nothing leaked there")
        for verdict in run.wrong:
            for moment, look in (("right after the release", verdict.alive), ("all processes gone", verdict.gone)):
                if look.places:
                    where = f"{run.carrier.name}: {verdict.result.case}, {moment}: {_places(look)}"
                    console.print(where, markup=False, highlight=False, soft_wrap=True)
        if run.failed is not None:
            print_failure(console, run.carrier.name, run.failed, run.console)


def _places(look: Look) -> str:
    """The first of them, by physical address, and what is there now."""
    told = [f"{place['frame'] * PAGE_SIZE:#x} ({place['kind']})" for place in look.places[:_PLACES]]
    more = look.pages - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")

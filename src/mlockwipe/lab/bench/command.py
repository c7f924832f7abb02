# SPDX-License-Identifier: MIT
"""`mlockwipe lab bench`: build, boot, count, print, write."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mlockwipe.kernel.command import building
from mlockwipe.kernel.module import fetched_headers
from mlockwipe.kernel.packages import output
from mlockwipe.lab.bench.guest import check_qemu, compile_init, measure
from mlockwipe.lab.bench.programs import Files, packed
from mlockwipe.lab.bench.table import Run, as_document, print_costs
from mlockwipe.lab.bench.work import CARRIERS, CLEARING, LOOP, WORKS, Configuration, Samples
from mlockwipe.lab.command import print_failure
from mlockwipe.lab.interruption import ends_by_signal
from mlockwipe.lab.kernel import Kernel, debian_release, kernel
from mlockwipe.lab.machine import GuestFailed
from mlockwipe.lab.side_by_side import side_by_side
from mlockwipe.report_file import ReportFile
from mlockwipe.verify import machine

_WIDTH = 170  # of the table, where it is not for a terminal


@ends_by_signal()
def lab_bench(carriers: Sequence[str], series: Sequence[str], *, json_file: str | None) -> int:
    """The exit status: 0 when everything was measured. Raises Refused."""
    qemu = check_qemu()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="mlockwipe-bench-") as place:
        init = compile_init(Path(place))
        file = ReportFile(json_file) if json_file else None
        programs = {one: packed(fetched_headers(debian_release(one))) for one in series}
        for name, one in product(carriers, series):
            carrier = CARRIERS[name]
            with building() as on_line:
                kinds = dict.fromkeys(configuration.kernel for configuration in carrier.configurations)
                kernels = {kind: kernel(f"{kind}-{one}", on_line) for kind in kinds}
            jobs = [
                (kernels[configuration.kernel], init, programs[one], configuration)
                for configuration in carrier.configurations
            ]
            try:
                samples = _measured(f"{name}, Linux {one}", jobs)
            except GuestFailed as failed:
                print_failure(console, f"{name}, Linux {one}", str(failed), failed.console)
                return 1
            made = [
                Run(carrier, one, configuration, booted, found)
                for (booted, _, _, configuration), found in zip(jobs, samples, strict=True)
            ]
            print_costs(console, made)
            runs += made
    if file is not None:
        tools = {
            name: output([path, "--version"]).partition("\n")[0] for name, path in (("qemu", qemu), ("gcc", "gcc"))
        }
        file.write(json.dumps(as_document(runs, machine() | tools), indent=2) + "\n")
    return 0


def _measured(what: str, jobs: Sequence[tuple[Kernel, Path, Files, Configuration]]) -> list[Samples]:
    """What each configuration took. Guests at the same time don't disturb each other: time in them is instructions.

    Raises Refused and GuestFailed.
    """
    found: dict[int, Samples] = {}
    with _bar(what, len(jobs)) as advance:
        for number, samples in side_by_side(_measure, jobs, lambda number, _: advance()):
            found[number] = samples
    return [found[number] for number in range(len(jobs))]


def _measure(
    booted: Kernel, init: Path, programs: Files, configuration: Configuration, tell: Callable[[None], object]
) -> Samples:
    try:
        return measure(booted, init, programs, configuration, lambda: tell(None))
    except GuestFailed as failed:
        raise GuestFailed(f"{configuration.name}: {failed}", failed.console) from failed


@contextmanager
def _bar(what: str, guests: int) -> Iterator[Callable[[], object]]:
    """What moves a bar on with every kind of work, where stderr is a terminal."""
    err = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=guests * len({LOOP, CLEARING, *WORKS}))
        yield lambda: progress.advance(task)

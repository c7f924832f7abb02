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
from mlockwipe.kernel.packages import output
from mlockwipe.lab.bench.guest import check_qemu, compile_init, measure
from mlockwipe.lab.bench.table import Run, as_document, print_costs
from mlockwipe.lab.bench.work import CARRIERS, CLEARING, LOOP, WORKS
from mlockwipe.lab.command import print_failure
from mlockwipe.lab.interruption import ends_by_signal
from mlockwipe.lab.kernel import kernel
from mlockwipe.lab.machine import GuestFailed
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
        for name, one in product(carriers, series):
            carrier = CARRIERS[name]
            with building() as on_line:
                kinds = dict.fromkeys(configuration.kernel for configuration in carrier.configurations)
                kernels = {kind: kernel(f"{kind}-{one}", on_line) for kind in kinds}
            for configuration in carrier.configurations:
                booted = kernels[configuration.kernel]
                try:
                    with _bar(f"{booted.name}, {configuration.name}") as advance:
                        samples = measure(booted, init, configuration, advance)
                except GuestFailed as failed:
                    print_failure(console, f"{booted.name}, {configuration.name}", str(failed), failed.console)
                    return 1
                runs.append(Run(carrier, one, configuration, booted, samples))
            print_costs(console, runs[-len(carrier.configurations) :])
    if file is not None:
        tools = {
            name: output([path, "--version"]).partition("\n")[0] for name, path in (("qemu", qemu), ("gcc", "gcc"))
        }
        file.write(json.dumps(as_document(runs, machine() | tools), indent=2) + "\n")
    return 0


@contextmanager
def _bar(what: str) -> Iterator[Callable[[], object]]:
    """What moves a bar on with every kind of work, where stderr is a terminal."""
    err = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=len({LOOP, CLEARING, *WORKS}))
        yield lambda: progress.advance(task)

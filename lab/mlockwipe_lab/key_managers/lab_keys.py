# SPDX-License-Identifier: MIT
"""`mlockwipe lab keys`: boot, hold, kill, print, write."""

import json
from collections.abc import Sequence

from rich.console import Console

from mlockwipe.carriers import CARRIERS
from mlockwipe.interruption import ends_by_signal
from mlockwipe.kernel.build_progress import building
from mlockwipe.report_file import ReportFile
from mlockwipe.verify_here import machine
from mlockwipe_lab.console import bars, print_failure
from mlockwipe_lab.key_managers import KeyManager
from mlockwipe_lab.key_managers.document import as_document
from mlockwipe_lab.key_managers.judge import Run, judge
from mlockwipe_lab.key_managers.verdict_table import print_table
from mlockwipe_lab.vm.kernels import kernel
from mlockwipe_lab.vm.machine import check_tools


@ends_by_signal()
def lab_keys(
    kernels: Sequence[str], carriers: Sequence[str], managers: Sequence[KeyManager], *, json_file: str | None
) -> int:
    """The exit status: 0 when every run is as it must be. Raises Refused."""
    check_tools()
    chosen = [CARRIERS[name] for name in carriers]
    with building() as on_line:
        booted = [kernel(name, on_line) for name in kernels]
    file = ReportFile(json_file) if json_file else None

    console = Console()
    runs: list[Run] = []
    for one in booted:
        with bars([one], chosen, len(managers)) as advance:
            here = list(judge(one, chosen, managers, lambda run, _: advance(run.kernel, run.carrier)))
        runs += here
        _print(console, here)
    if file is not None:
        file.write(json.dumps(as_document(runs, machine()), indent=2) + "\n")
    return 0 if runs and all(run.ok for run in runs) else 1


def _print(console: Console, runs: Sequence[Run]) -> None:
    how = ", ".join(f"{run.carrier.name} {run.seconds:.0f} s" for run in runs)
    by = next((f", under {run.acceleration}" for run in runs if run.acceleration), "")
    console.print(f"[bold]Linux {runs[0].kernel.release}[/]{by}: {how}", highlight=False)
    print_table({run.carrier.name: run.verdicts for run in runs}, console)
    for run in runs:
        if run.blind:
            console.print(f"[bold red]the judge is blind for {', '.join(run.blind)}[/]: nothing was left there")
        if run.failed is not None:
            print_failure(console, run.carrier.name, run.failed, run.console)

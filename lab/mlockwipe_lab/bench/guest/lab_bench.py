# SPDX-License-Identifier: MIT
"""`mlockwipe lab bench`: build, boot, measure, print, write."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlockwipe.interruption import ends_by_signal
from mlockwipe.kernel.build_progress import building
from mlockwipe.kernel.module import fetched_headers
from mlockwipe.kernel.packages import output
from mlockwipe.report_file import ReportFile
from mlockwipe.verify_here import machine
from mlockwipe_lab.bench.guest.cost_table import Run, as_document, cost_table
from mlockwipe_lab.bench.guest.measure import compile_init, measure
from mlockwipe_lab.bench.guest.packed import packed
from mlockwipe_lab.bench.guest.timing import TimedRun, as_timed_document, time_tables
from mlockwipe_lab.bench.guest.work import (
    CLEARING,
    COMPARISONS,
    COUNTING,
    LOOP,
    WORKS,
    Clock,
    Configuration,
    Samples,
    timing,
    together,
)
from mlockwipe_lab.bench.markdown import as_markdown
from mlockwipe_lab.console import bar, print_failure
from mlockwipe_lab.vm.alone import Files, check_qemu
from mlockwipe_lab.vm.failures import GuestFailed
from mlockwipe_lab.vm.kernels import Kernel, debian_release, kernel
from mlockwipe_lab.vm.machine import acceleration
from mlockwipe_lab.vm.side_by_side import side_by_side

BOOTS = 3  # of each configuration, where instructions are counted

_WIDTH = 170  # of the table, where it is not for a terminal


@ends_by_signal()
def lab_bench(
    carriers: Sequence[str],
    series: Sequence[str],
    *,
    rounds: int | None,
    json_file: str | None,
    markdown_file: str | None,
) -> int:
    """Count instructions, or where `rounds` are given, measure time in so many. The exit status: 0 when everything
    was measured; 1 when guests failed, and what the others measured is written all the same. Raises Refused.
    """
    qemu = check_qemu()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    runs: list[Run] = []
    timed: list[TimedRun] = []
    tables: list[Table] = []
    status = 0
    with tempfile.TemporaryDirectory(prefix="mlockwipe-bench-") as place:
        init = compile_init(Path(place), timing=bool(rounds))
        file = ReportFile(json_file) if json_file else None
        markdown = ReportFile(markdown_file) if markdown_file else None
        programs = {one: packed(fetched_headers(debian_release(one))) for one in series}
        for name, one in product(carriers, series):
            comparison = COMPARISONS[name]
            with building() as on_line:
                kinds = dict.fromkeys(configuration.kernel for configuration in comparison.configurations)
                kernels = {kind: kernel(f"{kind}-{one}", on_line) for kind in kinds}
            found = acceleration(next(iter(kernels.values()))) if rounds else "tcg"
            clock = timing(found, len(os.sched_getaffinity(0))) if rounds else COUNTING
            jobs = [
                (kernels[configuration.kernel], init, programs[one], configuration, clock)
                for configuration in comparison.configurations
            ]
            try:
                taken = _taken(f"{name}, Linux {one}", jobs, rounds or BOOTS)
            except GuestFailed as failed:
                print_failure(console, f"{name}, Linux {one}", str(failed), failed.console)
                status = 1
                continue
            made = [(comparison, one, configuration, booted) for booted, _, _, configuration, _ in jobs]
            if rounds:
                here = [TimedRun(*what, boots) for what, boots in zip(made, taken, strict=True)]
                new = [*time_tables(here, found)]
                timed += here
            else:
                counted = [Run(*what, together(boots)) for what, boots in zip(made, taken, strict=True)]
                new = [cost_table(counted)]
                runs += counted
            console.print(*new, sep="\n")
            tables += new
    if file is not None:
        tools = {
            name: output([path, "--version"]).partition("\n")[0] for name, path in (("qemu", qemu), ("gcc", "gcc"))
        }
        facts = machine() | tools
        document = as_timed_document(timed, facts) if rounds else as_document(runs, facts)
        file.write(json.dumps(document, indent=2) + "\n")
    if markdown is not None:
        markdown.write("\n".join(map(as_markdown, tables)))
    return status


_Job = tuple[Kernel, Path, Files, Configuration, Clock]


def _taken(what: str, jobs: Sequence[_Job], boots: int) -> list[list[Samples]]:
    """What each job has measured in each of so many boots. Guests whose time is instructions don't disturb each
    other, so they run side by side; others one at a time, in turn, every other round backwards.

    Raises Refused and GuestFailed.
    """
    found: dict[tuple[int, int], Samples] = {}
    order = range(len(jobs))
    turns = [(boot, job) for boot in range(boots) for job in (reversed(order) if boot % 2 else order)]
    works = len({LOOP, CLEARING, *WORKS})
    with bar(what, len(turns) * works) as advance:
        if jobs[0][-1] == COUNTING:
            tasks = [(boot, *jobs[job]) for boot, job in turns]
            for number, samples in side_by_side(_measure, tasks, lambda number, _: advance()):
                found[turns[number]] = samples
        else:
            for boot, job in turns:
                found[boot, job] = _measure(boot, *jobs[job], lambda _: advance())
    return [[found[boot, job] for boot in range(boots)] for job in order]


def _measure(
    boot: int,
    booted: Kernel,
    init: Path,
    programs: Files,
    configuration: Configuration,
    clock: Clock,
    tell: Callable[[None], object],
) -> Samples:
    try:
        return measure(booted, init, programs, configuration, lambda: tell(None), boot=boot, clock=clock)
    except GuestFailed as failed:
        raise GuestFailed(f"{configuration.name}: {failed}", failed.console) from failed

# SPDX-License-Identifier: MIT
"""How far the carriers have come, shown on stderr where that is a terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mlockwipe_lab.carriers import LabCarrier
from mlockwipe_lab.vm.kernel import Kernel

Advance = Callable[[Kernel, LabCarrier], object]


@contextmanager
def bars(kernels: Sequence[Kernel], carriers: Sequence[LabCarrier], total: int) -> Iterator[Advance]:
    """What moves the bar of a carrier on a kernel on with every verdict, of which there will be `total`."""
    err = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        tasks = {
            (kernel.name, carrier.name): progress.add_task(f"{kernel.release}, {carrier.name}", total=total)
            for kernel in kernels
            for carrier in carriers
        }
        yield lambda kernel, carrier: progress.advance(tasks[kernel.name, carrier.name])

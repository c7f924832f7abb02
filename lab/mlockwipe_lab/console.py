# SPDX-License-Identifier: MIT
"""For people at a terminal: how far the guests have come, and how one has failed."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mlockwipe.carriers.carrier import Carrier
from mlockwipe_lab.vm.kernels import Kernel

Advance = Callable[[Kernel, Carrier], object]

_TROUBLE = re.compile(r"Kernel panic|BUG: |Oops: |Traceback")
_LINES, _MOST_LINES = 20, 120


@contextmanager
def bars(kernels: Sequence[Kernel], carriers: Sequence[Carrier], total: int) -> Iterator[Advance]:
    """What moves the bar of a carrier on a kernel on with every verdict, of which there will be `total`."""
    with _progress() as progress:
        tasks = {
            (kernel.name, carrier.name): progress.add_task(f"{kernel.release}, {carrier.name}", total=total)
            for kernel in kernels
            for carrier in carriers
        }
        yield lambda kernel, carrier: progress.advance(tasks[kernel.name, carrier.name])


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[], object]]:
    """What moves the one bar on."""
    with _progress() as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _progress() -> Progress:
    """On stderr, where that is a terminal."""
    err = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def print_failure(console: Console, name: str, why: str, said: str) -> None:
    """`name`: what failed. `said`: what the guest's kernel said."""
    what = escape(f"{name}: {why}")
    console.print(f"[bold red]{what}[/]; the end of its console:", highlight=False)
    console.print(_end_of(said), markup=False, highlight=False, soft_wrap=True)


def _end_of(text: str) -> str:
    """The last lines of a console, from where a kernel or Python says what is wrong: what follows that is long."""
    lines = text.splitlines()
    wrong = [number for number, line in enumerate(lines) if _TROUBLE.search(line)]
    return "\n".join(lines[min([*wrong, max(0, len(lines) - _LINES)]) :][-_MOST_LINES:])

# SPDX-License-Identifier: MIT
"""How far a build of a kernel has come, on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from mlockwipe.kernel.build import OnLine


@contextmanager
def building() -> Iterator[OnLine]:
    """Shows what make is at, where stderr is a terminal."""
    with Console(stderr=True).status("the kernel's sources") as status:
        count = 0

        def show(line: str) -> None:
            nonlocal count
            count += line.startswith("  CC ")
            status.update(f"building a kernel: {count} files compiled, [dim]{escape(line.strip()[-60:])}[/]")

        yield show

# SPDX-License-Identifier: MIT
"""`mlockwipe kernel`: write the series, build a kernel with it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mlockwipe.kernel.build import OnLine, build
from mlockwipe.kernel.series import write


def kernel_patch(series: str, output: str) -> int:
    """Write the series into the directory `output` and print the files. Raises Refused."""
    for path in write(series, Path(output)):
        print(path)
    return 0


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


def kernel_build(series: str, config: str, source: str | None, output: str) -> int:
    """Build, and put bzImage, System.map and the configuration into the directory `output`. Raises Refused."""
    with building() as on_line:
        built = build(series, config, source=Path(source) if source else None, on_line=on_line)
    place = Path(output)
    place.mkdir(parents=True, exist_ok=True)
    top = built.image.parents[3]
    for file, name in ((built.image, "bzImage"), (top / "System.map", "System.map"), (top / ".config", "config")):
        shutil.copyfile(file, place / name)
    print(f"{place / 'bzImage'} ({built.compiled} files compiled)")
    return 0

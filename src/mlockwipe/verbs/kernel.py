# SPDX-License-Identifier: MIT
"""`mlockwipe kernel`: the boot option; what is below `kernel module` is in kernel_module.py."""

import argparse

from mlockwipe.verbs.kernel_module import Module
from mlockwipe.verbs.parser import Verb, Verbs
from mlockwipe.verbs.stdout import Stdout

_EXAMPLE = "  mlockwipe kernel build --series 6.12 --output build"


def _add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--series", choices=["6.1", "6.12"], default="6.12", help="for this Linux (default: 6.12)")
    parser.add_argument("--output", metavar="DIR", default=".", help="put the results there (default: here)")


class Patch(Verb):
    name = "kernel patch"
    summary = "write the patch series"
    description = "Write the patches that give Linux the boot option, with their cover letter, for `git am`."
    example = "  mlockwipe kernel patch --series 6.1 --output series"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_series(parser)

    def call(self, arguments: argparse.Namespace) -> int:
        from pathlib import Path

        from mlockwipe.kernel.series import write

        with Stdout():
            for path in write(arguments.series, Path(arguments.output)):
                print(path)
        return 0


class Build(Verb):
    name = "kernel build"
    summary = "build a kernel with the series"
    description = (
        "Fetch Debian's sources of Linux into the cache, apply the series, configure and compile there; the next "
        "build compiles what changed. `mlockwipe lab verify --kernel patched-6.12` does so by itself."
    )
    example = _EXAMPLE

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_series(parser)
        parser.add_argument(
            "--config",
            metavar="lab|debug|PATH",
            default="lab",
            help="a small kernel for the lab, that with the kernel's own checks, or your .config (default: lab)",
        )
        parser.add_argument("--source", metavar="DIR", help="these sources, which are patched, instead of Debian's")

    def call(self, arguments: argparse.Namespace) -> int:
        from pathlib import Path

        from mlockwipe.kernel.build import build
        from mlockwipe.kernel.build_progress import building

        source = Path(arguments.source) if arguments.source else None
        with Stdout():
            with building() as on_line:
                built = build(arguments.series, arguments.config, source=source, on_line=on_line)
            print(f"{built.copy_to(Path(arguments.output))} ({built.compiled} files compiled)")
        return 0


class Kernel(Verbs):
    name = "kernel"
    summary = "init_mlocked_on_free, for the whole machine: as a boot option, and as a module"
    description = (
        "init_mlocked_on_free wipes the locked memory of every program on the machine: as a boot option of a kernel "
        "of your own (docs/kernel.md), or as a module for Debian's (docs/module.md)."
    )
    example = _EXAMPLE
    below = (Patch(), Build(), Module())


VERB = Kernel()

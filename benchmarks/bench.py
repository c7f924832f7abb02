# SPDX-License-Identifier: MIT
"""`make bench`: what the supervisor costs, as ratios of things measured side by side."""

import argparse
import fnmatch
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import calls
import limits
import machine
import processes
import real
import release
from document import as_json
from programs import NoCompiler, build
from rich.console import Console
from runner import Broken, Runner
from sampling import Figure
from table import as_table

from mlockwipe.lab.bench.markdown import as_markdown

MEASUREMENTS: dict[str, Callable[[Runner], list[Figure]]] = {
    "never-locking": processes.never_locking,
    "start": processes.start,
    "attach": calls.attach,
    "mlock": calls.mlock,
    "lock-cycle": calls.lock_cycle,
    "munmap-unlocked": calls.munmap_unlocked,
    "munmap-spaced": calls.munmap_spaced,
    "munmap-locked": calls.munmap_locked,
    "audit": calls.audit,
    "fork": processes.fork,
    "release-64mib": release.small,
    "release-1gib": release.large,
    **{f"size-{release.size_id(size)}": partial(release.of_size, kibibytes=size) for size in release.SIZES},
    **{
        f"size-huge-{release.size_id(size)}": partial(release.of_size_huge, kibibytes=size)
        for size in release.HUGE_SIZES
    },
    "gpg": real.gpg,
    "python": real.python,
    "memcached": real.memcached,
    "web": real.web,
    "hackbench": real.hackbench,
    "kernel-build": real.kernel_build,
}
_ROUNDS, _QUICK = 11, 3


def main() -> int:
    """The exit status: 1 when a measurement broke, whether goals were reached or not."""
    arguments = _arguments()
    chosen = fnmatch.filter(MEASUREMENTS, arguments.only)
    if not chosen:
        print(f"no measurement matches '{arguments.only}': {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 2
    rounds = _QUICK if arguments.quick else _ROUNDS
    limits.raise_memlock()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every start would compile mlockwipe anew
    facts = machine.facts() | {"rounds": rounds}
    figures: list[Figure] = []
    missing: dict[str, str] = {}
    broken = False
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="mlockwipe-bench-") as directory:
        try:
            build(Path(directory))
        except NoCompiler as error:
            print(error, file=sys.stderr)
            return 1
        runner = Runner(Path(directory), rounds)
        for name in chosen:
            progress.print(f"{name} ...", style="dim")
            try:
                figures += MEASUREMENTS[name](runner)
            except limits.Skipped as reason:
                missing[name] = f"skipped: {reason}"
            except Broken as reason:
                missing[name] = f"broken: {reason}"
                broken = True
    facts["load_at_end"] = [round(load, 2) for load in os.getloadavg()]
    if arguments.json:
        Path(arguments.json).write_text(as_json(facts, figures, missing))
    told = as_table(facts, figures)
    if arguments.markdown:
        Path(arguments.markdown).write_text(as_markdown(told))
    out = Console(width=None if sys.stdout.isatty() else 160)
    out.print(told)
    for name, why in missing.items():
        out.print(f"{name}: {why}", markup=False)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there")
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK} rounds instead of {_ROUNDS}, too few for 95 %%"
    )
    parser.add_argument("--only", metavar="GLOB", default="*", help=f"of these: {', '.join(MEASUREMENTS)}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

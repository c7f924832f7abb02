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

from rich.console import Console

from mlockwipe.errors import Refused
from mlockwipe_lab.bench.host import call_costs, limits, process_costs, program_costs, release_costs
from mlockwipe_lab.bench.host.document import as_json
from mlockwipe_lab.bench.host.facts import facts
from mlockwipe_lab.bench.host.figure_table import as_table
from mlockwipe_lab.bench.host.runner import Broken, Runner
from mlockwipe_lab.bench.host.sampling import Figure
from mlockwipe_lab.bench.markdown import as_markdown
from mlockwipe_lab.bench.programs import PROGRAMS
from mlockwipe_lab.c_program import compile_c

MEASUREMENTS: dict[str, Callable[[Runner], list[Figure]]] = {
    "never-locking": process_costs.never_locking,
    "start": process_costs.start,
    "attach": call_costs.attach,
    "mlock": call_costs.mlock,
    "lock-cycle": call_costs.lock_cycle,
    "munmap-unlocked": call_costs.munmap_unlocked,
    "munmap-spaced": call_costs.munmap_spaced,
    "munmap-locked": call_costs.munmap_locked,
    "audit": call_costs.audit,
    "fork": process_costs.fork,
    "release-64mib": release_costs.small,
    "release-1gib": release_costs.large,
    **{
        f"size-{release_costs.size_id(size)}": partial(release_costs.of_size, kibibytes=size)
        for size in release_costs.SIZES
    },
    **{
        f"size-huge-{release_costs.size_id(size)}": partial(release_costs.of_size_huge, kibibytes=size)
        for size in release_costs.HUGE_SIZES
    },
    "gpg": program_costs.gpg,
    "python": program_costs.python,
    "memcached": program_costs.memcached,
    "web": program_costs.web,
    "hackbench": program_costs.hackbench,
    "kernel-build": program_costs.kernel_build,
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
    machine = facts() | {"rounds": rounds}
    figures: list[Figure] = []
    missing: dict[str, str] = {}
    broken = False
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="mlockwipe-bench-") as directory:
        try:
            build(Path(directory))
        except Refused as error:
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
    machine["load_at_end"] = [round(load, 2) for load in os.getloadavg()]
    if arguments.json:
        Path(arguments.json).write_text(as_json(machine, figures, missing))
    told = as_table(machine, figures)
    if arguments.markdown:
        Path(arguments.markdown).write_text(as_markdown(told))
    out = Console(width=None if sys.stdout.isatty() else 160)
    out.print(told)
    for name, why in missing.items():
        out.print(f"{name}: {why}", markup=False)
    return 1 if broken else 0


def build(place: Path) -> None:
    """Compile every C program into `place`, each under the name of its source. Raises Refused."""
    for source in sorted(PROGRAMS.glob("*.c")):
        compile_c(source, place / source.stem)


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

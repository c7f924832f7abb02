# SPDX-License-Identifier: MIT
"""Locked memory under everything that the kernel does to memory, in a guest.

Every page that survives is checked by the program (programs/mm_stress.c), the console is searched for a complaint of
the kernel, and in the second half, in which nothing happens that may leave a page behind, all memory is searched for
what is left. `python -m mlockwipe_lab.kernel_checks.stress --help` shows its options.
"""

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.pattern import FIRST
from mlockwipe.kernel.packages import cache
from mlockwipe_lab.c_program import compile_c
from mlockwipe_lab.kernel_checks import PROGRAMS
from mlockwipe_lab.vm.failures import GuestFailed, fault
from mlockwipe_lab.vm.kernels import Kernel, kernel
from mlockwipe_lab.vm.machine import CPUS, Machine, boot

WORKERS = 4
SETTLE = 3.0  # seconds: what was deferred is looked at once a second at the latest
GRACE = 600.0  # seconds beyond those that were asked for: a debug kernel on an emulated processor


@dataclass
class Stressed:
    """`counts`: what the program and /proc/vmstat counted, of all kinds at once and of the exact half. `left`: pages
    found afterwards. `wrong`: why it is not as it must be."""

    counts: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0
    wrong: list[str] = field(default_factory=list)
    console: str = ""


def compile_mm_stress(place: Path) -> Path:
    return compile_c(PROGRAMS / "mm_stress.c", place / "mm_stress", "-pthread", "-static")


def call(machine: Machine, function: str, timeout: float, **arguments: Any) -> Any:
    """Call a function of mlockwipe_lab.kernel_checks.in_guest in the guest. Raises GuestFailed."""
    return machine.call(f"mlockwipe_lab.kernel_checks.in_guest:{function}", timeout, **arguments)


def stress(
    booted: Kernel,
    seconds: float,
    *,
    append: Sequence[str] = CARRIERS["boot-option"].append,
    seed: int = 1,
    cpus: int = CPUS,
) -> Stressed:
    """Half of the time all kinds at once, half of it exactly."""
    seen = Stressed()
    second = secrets.randbits(64)
    with tempfile.TemporaryDirectory(prefix="stress-", dir=cache().parent) as place:
        program = str(compile_mm_stress(Path(place)))  # a guest has a /tmp of its own
        try:
            with boot(booted, append=append, cpus=cpus) as machine:
                for exact in (False, True):
                    argv = [program, str(seconds / 2), str(WORKERS), str(seed), f"{second:x}", *["exact"] * exact]
                    counts = call(machine, "stress", seconds / 2 + GRACE, argv=argv, exact=exact)
                    seen.counts.append(counts)
                    if counts["corrupt"]:
                        seen.wrong.append(f"{counts['corrupt']} pages were not as they must be: {counts['first']}")
                    if not all(counts["done"][what] for what in ("fork", "race", "pipe", "direct", "collapse")):
                        seen.wrong.append(f"not everything was done: {counts['done']}")
                    second += 1
                time.sleep(SETTLE)
                with machine.stopped() as ram:
                    seen.left = len(ram.pairs(FIRST, [second - 1])[second - 1])
                seen.console = machine.console
        except GuestFailed as failed:
            seen.wrong.append(str(failed))
            seen.console = failed.console
    conclude(seen)
    return seen


def conclude(seen: Stressed, tolerated: int = 0) -> None:
    """What is wrong by what was found at the end. `tolerated`: pages that may be left behind."""
    if seen.left > tolerated:
        seen.wrong.append(f"{seen.left} pages were left behind")
    if said := fault(seen.console):
        seen.wrong.append(f"the kernel says: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mlockwipe_lab.kernel_checks.stress", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kernel", default="patched-6.12", help="as `mlockwipe lab verify` (default: patched-6.12)")
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="(default: 10)")
    parser.add_argument("--cpus", type=int, default=CPUS, metavar="N", help=f"(default: {CPUS})")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), metavar="N", help="(default: random)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen to FILE")
    options = parser.parse_args()
    seen = stress(kernel(options.kernel), options.minutes * 60, seed=options.seed, cpus=options.cpus)
    if options.json:
        options.json.write_text(json.dumps(asdict(seen), indent=2) + "\n")
    return tell(
        seen,
        options.seed,
        lambda counts: {name: n for name, n in counts["vmstat"].items() if name.startswith("init_mlocked")},
    )


def tell(seen: Stressed, seed: int, wiped: Callable[[dict[str, Any]], object]) -> int:
    """Print what was seen; the exit status. `wiped`: what of the counts tells of it."""
    for what, counts in zip(("all kinds", "exact"), seen.counts, strict=False):
        print(f"{what}, seed {seed}: {counts['checked']} pages checked, {counts['corrupt']} corrupt,", end=" ")
        print(f"{counts['children']} children, {counts['oom']} OOM kills, {wiped(counts)}, {counts['done']}")
    print(f"left behind: {seen.left}; wrong: {seen.wrong or 'nothing'}")
    if seen.wrong:
        print(seen.console[-6000:], file=sys.stderr)
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: MIT
"""The module under everything that the kernel does to memory, in a guest.

As mlockwipe_lab.kernel_checks.stress, with the module on a stock kernel: first it is loaded and unloaded, and
switched on and off, again and again under load; then half of the time all kinds at once, and half of it exactly,
after which all memory is searched. `python -m mlockwipe_lab.kernel_checks.module_stress --help` shows its options.
"""

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.pattern import FIRST
from mlockwipe.kernel.module import build, fetched_headers
from mlockwipe.kernel.packages import cache
from mlockwipe_lab.kernel_checks import stress
from mlockwipe_lab.kernel_checks.stress import GRACE, SETTLE, WORKERS, compile_mm_stress, conclude, tell
from mlockwipe_lab.vm.failures import GuestFailed
from mlockwipe_lab.vm.kernels import Kernel, kernel
from mlockwipe_lab.vm.machine import CPUS, Machine, boot

LIMIT = 3600.0  # seconds for loads and switches
ROUND = 10.0  # seconds of a run of the program while the module comes and goes


@dataclass
class Stressed(stress.Stressed):
    """`cycles`: what was done to the module under load, before. `counts`: without /proc/vmstat's."""

    cycles: dict[str, Any] = field(default_factory=dict)


def call(machine: Machine, function: str, timeout: float = 120.0, **arguments: Any) -> Any:
    return machine.call(f"mlockwipe_lab.kernel_checks.module_in_guest:{function}", timeout, **arguments)


def stress_module(
    booted: Kernel,
    seconds: float,
    *,
    loads: int,
    switches: int,
    limit: float = LIMIT,
    on: bool = True,
    cpus: int = CPUS,
    seed: int = 1,
    tolerated: int = 0,
) -> Stressed:
    """`on`: whether the module is on while the program runs. `tolerated`: pages that may be left behind."""
    seen = Stressed()
    second = secrets.randbits(64)
    module = str(build(booted.release, fetched_headers(booted.release)))
    with tempfile.TemporaryDirectory(prefix="stress-", dir=cache().parent) as place:
        program = str(compile_mm_stress(Path(place)))  # a guest has a /tmp of its own

        def argv(lasting: float) -> list[str]:
            return [program, str(lasting), str(WORKERS), str(seed), f"{second:x}"]

        try:
            with boot(booted, append=CARRIERS["module"].append, cpus=cpus) as machine:
                machine.call("mlockwipe_lab.vm.guest:load_module", path=module, parameters=[f"enabled={on:d}"])
                if loads or switches:
                    times = {"loads": loads, "switches": switches, "limit": limit}
                    seen.cycles = call(machine, "cycles", limit + GRACE, argv=argv(ROUND), path=module, **times)
                    seen.wrong += seen.cycles["refused"]
                    if any(seen.cycles["done"][what] < times[what] for what in ("loads", "switches")):
                        seen.wrong.append(f"not all of it was done in {limit:.0f} s: {seen.cycles['done']}")
                    _check(seen, seen.cycles["runs"])
                for exact in (False, True):
                    second += 1
                    words = [*argv(seconds / 2), *["exact"] * exact]
                    seen.counts.append(call(machine, "stressed", seconds / 2 + GRACE, argv=words, exact=exact))
                _check(seen, seen.counts)
                time.sleep(SETTLE)
                with machine.stopped() as ram:
                    seen.left = len(ram.pairs(FIRST, [second])[second])
                seen.console = machine.console
        except GuestFailed as failed:
            seen.wrong.append(str(failed))
            seen.console = failed.console
    conclude(seen, tolerated)
    return seen


def _check(seen: Stressed, runs: list[dict[str, Any]]) -> None:
    for run in runs:
        if run["corrupt"]:
            seen.wrong.append(f"{run['corrupt']} pages were not as they must be: {run['first']}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mlockwipe_lab.kernel_checks.module_stress", description=__doc__)
    parser.add_argument("--kernel", default="debian-6.12", help="as `mlockwipe lab verify` (default: debian-6.12)")
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="(default: 10)")
    parser.add_argument("--loads", type=int, default=1000, metavar="N", help="load and unload (default: 1000)")
    parser.add_argument("--switches", type=int, default=1000, metavar="N", help="on and off (default: 1000)")
    parser.add_argument("--cpus", type=int, default=CPUS, metavar="N", help=f"(default: {CPUS})")
    parser.add_argument("--limit", type=float, default=60, metavar="N", help="minutes for both (default: 60)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), metavar="N", help="(default: random)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen to FILE")
    options = parser.parse_args()
    seen = stress_module(
        kernel(options.kernel),
        options.minutes * 60,
        loads=options.loads,
        switches=options.switches,
        limit=options.limit * 60,
        cpus=options.cpus,
        seed=options.seed,
    )
    if options.json:
        options.json.write_text(json.dumps(asdict(seen), indent=2) + "\n")
    runs = seen.cycles.get("runs", [])
    print(
        f"cycles: {seen.cycles.get('done')} in {seen.cycles.get('seconds')} s, each {seen.cycles.get('took')},",
        end=" ",
    )
    print(f"{sum(run['checked'] for run in runs)} pages checked, {sum(run['corrupt'] for run in runs)} corrupt")
    return tell(seen, options.seed, lambda counts: counts["module"])


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: MIT
"""A machine and process 1 in it, which measures.

As a rule its time goes on by one nanosecond with every instruction. QEMU's -icount does that, on one emulated CPU: no
cache, no waiting, no other load on this machine shows. The same kernel on the same command line takes the same number
of instructions each time it is booted.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from mlockwipe.kernel.module import NAME, build, fetched_headers
from mlockwipe_lab.bench.guest.work import COUNTING, Clock, Configuration, Sample, mistake
from mlockwipe_lab.c_program import compile_c
from mlockwipe_lab.vm.alone import Files, run_alone
from mlockwipe_lab.vm.failures import GuestFailed
from mlockwipe_lab.vm.kernels import Kernel

TIMEOUT = 1200.0  # seconds; it takes minutes of a CPU
MEMORY = 1536  # MiB: the largest munmap, and room for the programs

_SOURCE = Path(__file__).with_name("workloads.c")
_FLAGS = ("-static",)
_TIMING = ("-DTIME", "-DTIMES=5")

# Programs are mapped at the same places every time, for the page tables that they take depend on that.
_WORDS = ("console=ttyS0", "panic=-1", "norandmaps")


def compile_init(place: Path, *, timing: bool = False) -> Path:
    """Process 1, compiled into the directory `place`; it counts instructions, or is `timing`. Raises Refused."""
    return compile_c(_SOURCE, place / "init", *_FLAGS, *(_TIMING if timing else ()))


def measure(
    kernel: Kernel,
    init: Path,
    programs: Files,
    configuration: Configuration,
    advance: Callable[[], object] = lambda: None,
    *,
    boot: int = 0,
    clock: Clock = COUNTING,
    timeout: float = TIMEOUT,
) -> dict[str, Sample]:
    """Boot `kernel` with `init` as process 1 and `programs` around it: what each kind of work took, by its name.
    `advance` is called for each. `boot`: its number, which makes it differ a little from the others. `timeout`: in
    seconds, within which a machine that dies of its emulation is booted again.

    Raises Refused and GuestFailed.
    """
    told = 0

    def tell(console: str) -> None:
        nonlocal told
        done = len(_said(console))
        for _ in range(told, done):
            advance()
        told = max(told, done)

    def read(console: str) -> dict[str, Sample]:
        samples = parse(console)
        if (wrong := mistake(samples, configuration, console, clock)) is not None:
            raise GuestFailed(wrong, console)
        return samples

    return run_alone(
        kernel,
        {"init": init.read_bytes(), **programs, **_module(kernel, configuration)},
        [*_WORDS, f"boot={boot}", *configuration.append],
        read,
        options=[*clock, "-m", f"{MEMORY}M"],
        timeout=timeout,
        on_console=tell,
    )


def _module(kernel: Kernel, configuration: Configuration) -> Files:
    """The module, on the kernels that it is for, loaded or not. Raises Refused."""
    if configuration.kernel != "debian":
        return {}
    return {f"{NAME}.ko": build(kernel.release, fetched_headers(kernel.release)).read_bytes()}


def _said(console: str) -> Sequence[str]:
    """The whole lines of process 1."""
    return [line for line in console.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]


def parse(console: str) -> dict[str, Sample]:
    """What process 1 has measured. Raises GuestFailed when it has not got to its end."""
    samples: dict[str, Sample] = {}
    for line in _said(console):
        try:
            said = json.loads(line)
            if "failed" in said:
                raise GuestFailed(f"process 1 failed: {said['failed']}", console)
            if "end" in said:
                return samples
            samples[said["workload"]] = Sample(*(tuple(said[key]) for key in ("took", "wiped", "system")))
        except (ValueError, KeyError, TypeError):
            raise GuestFailed(f"process 1 said {line.strip()!r}", console) from None
    raise GuestFailed("process 1 did not get to its end", console)

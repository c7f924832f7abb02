# SPDX-License-Identifier: MIT
"""What single calls cost: munmap and mlock of a process that locks memory, and its first mlock."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mlockwipe_lab.bench.host.runner import Runner
from mlockwipe_lab.bench.host.sampling import Figure, Rounds, Times

_COUNT = 1024
_SPACED = 256
_PAUSE = 200  # microseconds
_ATTACHED = 20  # processes a run


@dataclass(frozen=True)
class _NullTracer:
    """One way to be stopped for nothing. `name` and `told`: added to those of what is measured."""

    variant: str
    name: str = ""
    told: str = ""
    options: Sequence[str] = ()


# Bound to CPUs: else the kernel changes from round to round between two and one, where a stop costs a tenth.
_APART = _NullTracer("null tracer", told=", null tracer on another CPU", options=["--apart"])
_PINNED = _NullTracer("null tracer, pinned", "-pinned", ", null tracer on the same CPU", ["--pin"])
_TWICE = _NullTracer(
    "null tracer, twice", "-twice", ", null tracer on another CPU stops after it, too", ["--apart", "--twice"]
)


def _against_null_tracer(
    run: Runner,
    name: str,
    what: str,
    call: str,
    *command: str,
    goal: float | None,
    aim: float | None = None,
    tracers: Sequence[_NullTracer] = (_APART, _PINNED),
) -> list[Figure]:
    """A figure for each null tracer (on one CPU, the pinned). The first has the goal, and all distributions."""
    if len(os.sched_getaffinity(0)) == 1:
        tracers = [_PINNED]
    variants: dict[str, Callable[[], Times]] = {
        "bare": lambda: run.bare(*command),
        **{tracer.variant: partial(run.traced, call, *command, options=tracer.options) for tracer in tracers},
        "mlockwipe": lambda: run.supervised(*command),
    }
    rounds = Rounds.interleave(variants, run.rounds)
    times = rounds.medians(call)
    figures = [
        Figure(
            f"{name}{tracer.name}",
            f"{what}{tracer.told}",
            "x",
            rounds.ratio("mlockwipe", tracer.variant, call),
            {"bare": times["bare"], "null tracer": times[tracer.variant], "mlockwipe": times["mlockwipe"]},
        )
        for tracer in tracers
    ]
    each = {variant: rounds.distribution(variant, f"{call}_each") for variant in variants}
    return [replace(figures[0], goal=goal, aim=aim, distributions=each), *figures[1:]]


def munmap_unlocked(run: Runner) -> list[Figure]:
    program = run.program("unmap")
    return _against_null_tracer(
        run, "munmap-unlocked", "munmap of an unlocked page", "munmap", program, "unlocked", str(_COUNT),
        goal=1.3, aim=0.5,
    )  # fmt: skip


def munmap_spaced(run: Runner) -> list[Figure]:
    program = run.program("unmap")
    return _against_null_tracer(
        run, "munmap-spaced", f"munmap of an unlocked page every {_PAUSE} us", "munmap",
        program, "unlocked", str(_SPACED), str(_PAUSE), goal=None,
    )  # fmt: skip


def munmap_locked(run: Runner) -> list[Figure]:
    program = run.program("unmap")
    return _against_null_tracer(
        run,
        "munmap-locked",
        "munmap of a locked page, wiped",
        "munmap",
        program,
        "locked",
        str(_COUNT),
        goal=3.0,
        tracers=(_APART, _PINNED, _TWICE),
    )


def mlock(run: Runner) -> list[Figure]:
    program = run.program("lock")
    return _against_null_tracer(run, "mlock", "mlock once attached", "mlock", program, str(_COUNT), goal=1.0)


def lock_cycle(run: Runner) -> list[Figure]:
    rounds = run.both(run.program("cycle"), str(_COUNT))
    values = [value / 1000 for value in rounds.of("mlockwipe", "cycle")]
    what = "mmap, mlock, munlock and munmap of a page"
    return [Figure("lock-cycle", what, "us", values, rounds.medians("cycle"), neutral=None)]


def audit(run: Runner) -> list[Figure]:
    """Against the supervisor alone: what looking at the memory and at the stacks adds."""
    return [
        _audit(run, "audit-clear", "lock cycle, left clear, under audit", "cycle", run.program("cycle"), _SPACED),
        _audit(
            run, "audit-left", "munmap of a locked page not clear, under audit", "munmap",
            run.program("unmap"), _SPACED, "locked", left=_SPACED + 1,  # and one at the exit
        ),
    ]  # fmt: skip


def _audit(
    run: Runner, name: str, what: str, time: str, program: str, count: int, *words: str, left: int = 0
) -> Figure:
    command = program, *words, str(count)
    rounds = Rounds.interleave(
        {
            "bare": lambda: run.bare(*command),
            "mlockwipe": lambda: run.supervised(*command),
            "audit": lambda: run.audited(*command, left=left),
        },
        run.rounds,
    )
    return Figure(name, what, "x", rounds.ratio("audit", "mlockwipe", time), rounds.medians(time))


def attach(run: Runner) -> list[Figure]:
    rounds = run.both(run.program("first_lock"), str(_ATTACHED))

    def figure(name: str, what: str, time: str, goal: float | None) -> Figure:
        values = [value / 1000 for value in rounds.of("mlockwipe", time)]
        return Figure(name, what, "us", values, rounds.medians(time), goal, neutral=None)

    return [
        figure("attach", f"first mlock of a process (median of {_ATTACHED} processes a round)", "mlock", 1500.0),
        figure("attach-first", "first mlock under a supervisor", "mlock_first_of_all", None),
    ]

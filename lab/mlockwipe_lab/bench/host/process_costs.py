# SPDX-License-Identifier: MIT
"""What processes cost: programs that never lock, the start of a run, and forks."""

import sys

from mlockwipe_lab.bench.host.runner import MLOCKWIPE, Runner
from mlockwipe_lab.bench.host.sampling import Figure, Rounds, over_bare

_EXECUTED = 100
_FORKED = 100


def never_locking(run: Runner) -> list[Figure]:
    """The goal is finer than the noise of one run, so there are many short ones, and bare against bare beside."""
    command = run.program("fork_exec"), str(_EXECUTED)
    rounds = Rounds.interleave(
        {
            "bare": lambda: run.bare(*command),
            "mlockwipe": lambda: run.supervised(*command, locks=False),
            "bare again": lambda: run.bare(*command),
        },
        4 * run.rounds,
    )
    times = rounds.medians("fork_exec")
    return [
        Figure(
            "never-locking",
            "fork, exec and wait, nothing locked",
            "x",
            rounds.ratio("mlockwipe", "bare", "fork_exec"),
            times,
            goal=1.02,
        ),
        Figure(
            "never-locking-noise",
            "the same, bare over bare",
            "x",
            rounds.ratio("bare again", "bare", "fork_exec"),
            {"bare": times["bare"]},
        ),
    ]


def start(run: Runner) -> list[Figure]:
    """Whole processes. The program that does nothing is fork_exec without arguments."""
    nothing, interpreter = run.program("fork_exec"), (sys.executable, "-c", "pass")
    rounds = Rounds.interleave(
        {
            "nothing": lambda: run.whole(nothing),
            "run nothing": lambda: run.whole(str(MLOCKWIPE), "run", "--", nothing),
            "python": lambda: run.whole(*interpreter),
            "run python": lambda: run.whole(str(MLOCKWIPE), "run", "--", *interpreter),
        },
        2 * run.rounds,
    )
    times = rounds.medians("whole")

    def figure(name: str, what: str, more: str, less: str, bare: str, goal: float | None) -> Figure:
        values = [value / 1e6 for value in rounds.difference(more, less, "whole")]
        by_variant = {"bare": times[bare], "mlockwipe": times[more]}
        return Figure(name, what, "ms", values, by_variant, goal, neutral=0.0)

    return [
        figure("start", "run of nothing, more than python -c pass", "run nothing", "python", "python", 25.0),
        figure(
            "start-python",
            "run of python -c pass, more than it bare",
            "run python",
            "python",
            "python",
            None,
        ),
        figure("start-nothing", "run of nothing, more than it bare", "run nothing", "nothing", "nothing", None),
    ]


def fork(run: Runner) -> list[Figure]:
    return [_fork(run, "unlocked"), _fork(run, "locked")]


def _fork(run: Runner, kind: str) -> Figure:
    locks = kind == "locked"
    rounds = run.both(run.program("fork"), kind, str(_FORKED), locks=locks)
    what = "with 16 locked pages" if locks else "without locked memory"
    return over_bare(rounds, f"fork-{kind}", f"fork {what}, child ends at once", "fork")

# SPDX-License-Identifier: MIT
"""What the wipe of a large memory costs at the death of its process, in units of one memset of the same."""

import limits
from runner import Runner
from sampling import Figure, Rounds

_KINDS = {
    "rw": "PROT_READ|PROT_WRITE",
    "read": "PROT_READ",
    "huge": "huge pages",
}


def small(run: Runner) -> list[Figure]:
    return [_release(run, kind, 64) for kind in _KINDS]


def large(run: Runner) -> list[Figure]:
    return [_release(run, kind, 1024) for kind in _KINDS]


def _release(run: Runner, kind: str, mebibytes: int) -> Figure:
    limits.need(mebibytes << 20)
    command = run.program("release"), kind, str(mebibytes)
    rounds = Rounds.interleave(
        {"bare": lambda: run.bare(*command), "mlockwipe": lambda: run.supervised(*command)}, run.rounds
    )
    more = rounds.difference("mlockwipe", "bare", "release")
    # of both runs: it is the same work, and one alone may have met other load
    memset = [
        sum(pair) / 2 for pair in zip(rounds.of("bare", "memset"), rounds.of("mlockwipe", "memset"), strict=True)
    ]
    times = rounds.medians("release") | {"memset": sorted(memset)[len(memset) // 2]}
    size = f"{mebibytes >> 10} GiB" if mebibytes >= 1024 else f"{mebibytes} MiB"
    return Figure(
        f"release-{size.replace(' ', '').lower()}-{kind}",
        f"{size} wiped at SIGKILL, {_KINDS[kind]}; over memset",
        "x",
        [wiped / once for wiped, once in zip(more, memset, strict=True)],
        times,
        goal=5.0,
        aim=3.5,
        neutral=0.0,  # a difference, in units of a memset
    )

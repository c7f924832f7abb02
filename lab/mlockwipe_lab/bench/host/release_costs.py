# SPDX-License-Identifier: MIT
"""What the release of memory costs at the death of its process: of large memory in units of one memset of the same,
of any size against the process bare."""

from statistics import median

from mlockwipe_lab.bench.host import limits
from mlockwipe_lab.bench.host.runner import Runner
from mlockwipe_lab.bench.host.sampling import Figure, over_bare
from mlockwipe_lab.bench.sizes import size_name
from mlockwipe_lab.bench.statistics import ratios

SIZES = (4, 64, 1 << 10, 16 << 10, 256 << 10, 1 << 20)  # KiB
HUGE_SIZES = (2 << 10, *SIZES[3:])
_KINDS = {
    "rw": "PROT_READ|PROT_WRITE",
    "read": "PROT_READ",
    "huge": "huge pages",
}
_LOCKED = {"locked": "locked", "unlocked": "unlocked beside a locked page"}
_PROCESSES, _SMALL = 8, 64 << 10  # so many are killed in a run, or one, if it has more KiB than that


def small(run: Runner) -> list[Figure]:
    return [_over_memset(run, kind, 64 << 10) for kind in _KINDS]


def large(run: Runner) -> list[Figure]:
    return [_over_memset(run, kind, 1 << 20) for kind in _KINDS]


def of_size(run: Runner, kibibytes: int) -> list[Figure]:
    """In pages of 4 KiB."""
    return [_over_bare(run, "rw", lock, kibibytes) for lock in _LOCKED]


def of_size_huge(run: Runner, kibibytes: int) -> list[Figure]:
    limits.need_huge_pages()
    return [_over_bare(run, "huge", lock, kibibytes) for lock in _LOCKED]


def size_id(kibibytes: int) -> str:
    return size_name(kibibytes, "").lower()


def _over_memset(run: Runner, kind: str, kibibytes: int) -> Figure:
    limits.need(kibibytes << 10)
    rounds = run.both(run.program("release"), kind, "locked", str(kibibytes), "1")
    more = rounds.difference("mlockwipe", "bare", "release")
    # of both runs: it is the same work, and one alone may have met other load
    memset = [
        sum(pair) / 2 for pair in zip(rounds.of("bare", "memset"), rounds.of("mlockwipe", "memset"), strict=True)
    ]
    return Figure(
        f"release-{size_id(kibibytes)}-{kind}",
        f"{size_name(kibibytes)} wiped at SIGKILL, {_KINDS[kind]}; over memset",
        "x",
        ratios(more, memset),
        rounds.medians("release") | {"memset": median(memset)},
        goal=5.0,
        aim=3.5,
        neutral=0.0,  # a difference, in units of a memset
    )


def _over_bare(run: Runner, kind: str, lock: str, kibibytes: int) -> Figure:
    """There are many of them and the largest take seconds: half of the rounds."""
    limits.need(kibibytes << 10)
    count = _PROCESSES if kibibytes <= _SMALL else 1
    rounds = run.both(run.program("release"), kind, lock, str(kibibytes), str(count), rounds=run.fewer_rounds)
    huge = "huge-" if kind == "huge" else ""
    return over_bare(
        rounds,
        f"size-{huge}{size_id(kibibytes)}-{lock}",
        f"{size_name(kibibytes)}{' in huge pages' if huge else ''} released at SIGKILL, {_LOCKED[lock]}",
        "release",
    )

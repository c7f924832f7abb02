# SPDX-License-Identifier: MIT
"""python -m tests.soak: every way to release locked memory, and every death of the supervisor, by the thousand.

Each way of tests/programs/ways.c runs under `mlockwipe run` and, as its negative control, bare: supervised it must
leave nothing, bare it must leak in every trial. Then the supervisor itself is killed, again and again, in every
situation of tests/support/victim.py. Last come random programs (tests/fuzz.py), other ones each time.
"""

import argparse
import functools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests import fuzz
from tests.support import fuzz_scripts
from tests.support.c_programs import compiled
from tests.support.running import MLOCKWIPE, Marked
from tests.support.victim import SITUATIONS, Situation, Trial, kill_supervisor, kill_victim

SCHEMA = 1
WIDTH = 130  # of the table, where the terminal has less or there is none
THREADS = (1, 4)
LOAD = "attach-under-load"
EARLIEST, LATEST = 0.00001, 0.005  # seconds from the start of a situation to the death of the supervisor


@dataclass(frozen=True)
class Amount:
    """How many trials are made of each kind; those of ways and races with each number of threads."""

    way: int
    race: int
    load: int
    death: int
    fuzz: int = 0  # in batches
    control: int = 20


FULL = Amount(way=1000, race=5000, load=200, death=100, fuzz=200)  # that many batches take about an hour
SHORT = Amount(way=40, race=200, load=20, death=5)


@dataclass
class Counts:
    """What was seen in a number of trials."""

    trials: int = 0
    dirty_trials: int = 0
    dirty_pages: int = 0
    hangs: int = 0
    wrong: int = 0
    left_over: int = 0
    killed: int = 0  # trials that SIGKILL or another signal ended: of a race about a half
    said: list[str] = field(default_factory=list)

    def __add__(self, other: "Counts") -> "Counts":
        mine, others = vars(self), vars(other)
        return Counts(**{name: mine[name] + others[name] for name in mine})

    @property
    def spotless(self) -> bool:
        return self.trials > 0 and not (self.dirty_trials or self.dirty_pages or self.troubled)

    @property
    def leaks(self) -> bool:
        """As a negative control must: in every trial, and with no other trouble."""
        return self.dirty_trials == self.trials > 0 and not self.troubled

    @property
    def troubled(self) -> bool:
        return bool(self.hangs or self.wrong or self.left_over)


@dataclass
class Row:
    """One way with one number of threads, or one situation of the supervisor's death."""

    name: str
    threads: int
    supervised: Counts = field(default_factory=Counts)
    control: Counts = field(default_factory=Counts)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return self.supervised.spotless and self.control.leaks


@dataclass(frozen=True)
class Batch:
    """What makes a row: the trials of one way or situation, supervised or bare."""

    name: str
    threads: int
    trials: int
    run: Callable[[int, bool], Counts]  # how many trials, and whether supervised


def soak(
    amount: Amount,
    *,
    only: str = "*",
    rounds: int = 1,
    done: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Run all whose name matches. `done` is told of each row at the end of each of its rounds."""
    batches = [batch for batch in _batches(amount) if fnmatchcase(batch.name, only)]
    rows = [Row(batch.name, batch.threads) for batch in batches]
    for _ in range(rounds):
        for batch, row in zip(batches, rows, strict=True):
            start = time.monotonic()
            row.control += batch.run(amount.control, False)
            row.supervised += batch.run(batch.trials, True)
            row.seconds += time.monotonic() - start
            done(row)
    return rows


def _batches(amount: Amount) -> Iterator[Batch]:
    for way, least_threads in _ways().items():
        trials = amount.race if way.startswith("kill-racing-") else amount.load if way == LOAD else amount.way
        for threads in THREADS:
            if threads >= least_threads and (way != LOAD or threads == max(THREADS)):
                yield Batch(way, threads, trials, functools.partial(_run_way, way, threads))
    for situation in SITUATIONS:
        name = f"supervisor-killed:{situation.doing}"
        yield Batch(name, situation.threads, amount.death, functools.partial(_run_deaths, situation))
    if amount.fuzz:
        yield Batch("random-programs", fuzz_scripts.THREADS, amount.fuzz, _run_fuzz)


def _ways() -> dict[str, int]:
    """The names of all ways, and the least number of threads of each."""
    listed = subprocess.run([compiled("ways"), "--list"], check=True, capture_output=True, text=True).stdout
    return {way: int(threads) for way, threads in (line.split() for line in listed.splitlines())}


def _run_way(way: str, threads: int, trials: int, supervised: bool) -> Counts:
    prefix = [MLOCKWIPE, "run", "-q", "--"] if supervised else []
    marked = Marked()
    process = subprocess.Popen(
        [*prefix, compiled("ways"), way, str(trials), str(threads)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=marked.environment,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=300 + trials)
    except subprocess.TimeoutExpired:  # not a trial, which ways ends by itself: all of it
        marked.kill()
        _, err = process.communicate()
        return Counts(trials=trials, hangs=1, said=[*err.splitlines(), "it did not end"])
    finally:
        left_over = _left_over(marked)
    said = [*err.splitlines(), *(f"left over: {name}" for name in left_over)]
    try:
        seen = json.loads(out)
    except ValueError:
        return Counts(trials=trials, wrong=1, left_over=len(left_over), said=[*said, f"status {process.returncode}"])
    counts = Counts(**{name: seen[name] for name in vars(Counts()) if name in seen})
    counts.left_over = len(left_over)
    counts.said = said
    failed = bool(counts.dirty_trials or counts.hangs or counts.wrong)
    if process.returncode != failed or err:
        counts.wrong += not counts.wrong
        counts.said.append(f"status {process.returncode}")
    return counts


def _left_over(marked: Marked) -> list[str]:
    """The names of processes that have outlived their program. They are killed."""
    try:
        return list(marked.await_end(timeout=30).values())
    finally:
        marked.kill()


def _run_deaths(situation: Situation, trials: int, supervised: bool) -> Counts:
    counts = Counts()
    for number in range(trials):
        if supervised:
            delay = EARLIEST * (LATEST / EARLIEST) ** random.random()  # as often within 0.1 ms as after 0.5 ms
            trial = kill_supervisor(situation, number, delay=delay)
        else:
            trial = kill_victim(situation, number)
        trouble = _trouble(situation, trial, supervised)
        counts += Counts(
            trials=1,
            dirty_trials=int(trial.dirty > 0),
            dirty_pages=trial.dirty,
            hangs=int(trial.hung),
            wrong=int(trouble is not None),
            left_over=len(trial.left_over),
            killed=int(trial.status < 0),
            said=[f"trial {number}: {trouble}"] if trouble else [],
        )
    return counts


def _run_fuzz(trials: int, supervised: bool) -> Counts:
    """A trial is a batch of random programs. Of each that comes to something else the smallest script is told."""
    counts = Counts()
    for _ in range(trials if supervised else min(trials, 2)):
        first = random.randrange(1 << 31)
        seeds = range(first, first + fuzz.BATCH)
        found = list(fuzz.fuzz(seeds)) if supervised else []
        seen = [one.other for one in found] or ([] if supervised else fuzz.outcomes(map(fuzz_scripts.script, seeds)))
        dirty = sum(map(fuzz.dirty_pages, seen))
        counts += Counts(
            trials=1,
            dirty_trials=int(dirty > 0),
            dirty_pages=dirty,
            wrong=len(found),
            said=[str(one) for one in found],
        )
    return counts


def _trouble(situation: Situation, trial: Trial, supervised: bool) -> str | None:
    """What was wrong with a trial, but for dirty pages, hangs and left-over processes."""
    if trial.pages < 16:
        return f"{trial.pages} pages seen"
    if trial.status != -9 and (situation.endless or trial.status != 0):
        return f"status {trial.status}: {trial.err}"
    if supervised and situation.endless and "the supervisor was killed" not in trial.err:
        return f"nothing was said of the death: {trial.err}"
    return None


def table(rows: Sequence[Row]) -> Table:
    """The rows to look at. A row that is not good is red."""
    table = Table(box=box.SIMPLE_HEAD, caption="bare: how many trials of the negative control leaked")
    table.add_column("what", no_wrap=True)
    for name in ("threads", "trials", "dirty pages", "hangs", "wrong", "left over", "killed", "bare", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        seen, control = row.supervised, row.control
        table.add_row(
            row.name,
            *map(str, (row.threads, seen.trials, seen.dirty_pages, seen.hangs, seen.wrong, seen.left_over)),
            str(seen.killed),
            f"{control.dirty_trials}/{control.trials}",
            f"{row.seconds:.1f}",
            style=None if row.good else "bold red",
        )
    table.add_section()
    total = sum((row.supervised for row in rows), Counts())
    leaked = sum((row.control for row in rows), Counts())
    table.add_row(
        "in all",
        "",
        *map(str, (total.trials, total.dirty_pages, total.hangs, total.wrong, total.left_over, total.killed)),
        f"{leaked.dirty_trials}/{leaked.trials}",
        f"{sum(row.seconds for row in rows):.1f}",
    )
    return table


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "good": bool(rows) and all(row.good for row in rows),
        "total": asdict(sum((row.supervised for row in rows), Counts())),
        "rows": [{**asdict(row), "good": row.good} for row in rows],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="run everything N times (default: 1)")
    parser.add_argument("--only", default="*", metavar="GLOB", help="run what has such a name, for example 'kill-*'")
    parser.add_argument("--short", action="store_true", help="fewer trials, less than a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    options = parser.parse_args(arguments)
    errors = Console(stderr=True, highlight=False)

    def tell(row: Row) -> None:
        verdict = "good" if row.good else "NOT GOOD"
        errors.print(f"{row.name} ({row.threads}): {row.seconds:.1f} s, {verdict}", markup=False)
        for line in [] if row.good else [*row.supervised.said, *row.control.said]:
            errors.print(f"  {line}", markup=False)

    rows = soak(SHORT if options.short else FULL, only=options.only, rounds=options.rounds, done=tell)
    if not rows:
        parser.error(f"nothing has a name like {options.only}")
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(as_json(rows), indent=2) + "\n")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

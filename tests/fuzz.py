# SPDX-License-Identifier: MIT
"""python -m tests.fuzz: random programs run bare and supervised must come to the same, and leave nothing sensitive.

Each script of tests/support/fuzz_scripts.py is executed twice by tests/programs/fuzzed.c. All that a program can see
has to be the same: results and errors, memory, files, how children and the whole end. Pages that a witness has kept
must be zeros once they were released, if they were sensitive, and else as they were.
"""

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tests.support.c_programs import compiled
from tests.support.fuzz_scripts import Script, combined, script
from tests.support.running import MLOCKWIPE, Marked

SUPERVISED = (MLOCKWIPE, "run", "-q", "--")
BATCH = 40  # scripts that are executed by one process
_SECONDS = 60  # for a script that hangs, of which fuzzed.c itself makes an end after 20
_GONE = re.compile(r"(\S+) (sensitive|unsure|plain) gone: (\S+)")


_PIECES = re.compile(r"\n| \| ")


@dataclass
class Divergence:
    """A script, as small as it could be made, and what was seen of it."""

    script: Script
    bare: str
    other: str
    wiped: bool

    def __str__(self) -> str:
        pairs = zip_longest(self.bare.splitlines(), self.other.splitlines(), fillvalue="")
        seen = "\n".join(f"  {a}" if same(a, b, wiped=self.wiped) else self._told(a, b) for a, b in pairs)
        return f"{self.script.text()}\n(- bare, + supervised)\n{seen}\n"

    def _told(self, bare: str, other: str) -> str:
        ours, theirs = _PIECES.split(bare), _PIECES.split(other)
        if len(ours) == len(theirs):  # of the pages, only those that matter
            pairs = [pair for pair in zip(ours, theirs, strict=True) if not _same(*pair, wiped=self.wiped)]
            bare, other = (" | ".join(pieces) for pieces in zip(*pairs, strict=True))
        return f"- {bare}\n+ {other}"


def same(bare: str, other: str, *, wiped: bool) -> bool:
    """Whether what was seen of another run is what should be, given what was seen of a bare one."""
    ours, theirs = (_PIECES.split(text) for text in (bare, other))
    return len(ours) == len(theirs) and all(_same(*pair, wiped=wiped) for pair in zip(ours, theirs, strict=True))


def _same(bare: str, other: str, *, wiped: bool) -> bool:
    before, after = _GONE.fullmatch(bare), _GONE.fullmatch(other)
    if before is None or after is None or before.groups()[:2] != after.groups()[:2]:
        return bare == other
    tag, sensitivity, held = before.groups()
    if tag not in (held, after[3]) or _is_other_tag(tag, held) or _is_other_tag(tag, after[3]):
        # It was written to again. Whether in place depends on references in the batches of the kernel's CPUs.
        return True
    if wiped and sensitivity == "unsure":
        return after[3] in (held, "zero")
    return after[3] == ("zero" if wiped and sensitivity == "sensitive" else held)


def _is_other_tag(tag: str, held: str) -> bool:
    return held not in (tag, "zero", "missing", "other")


def dirty_pages(seen: str) -> int:
    """How many sensitive pages were released as they were."""
    return sum(page[1] == "sensitive" and page[0] == page[2] for page in _GONE.findall(seen))


def outcomes(scripts: Iterable[Script], prefix: Sequence[str] = ()) -> list[str]:
    """What was seen of each, executed by one process under `prefix`."""
    scripts = list(scripts)
    with tempfile.TemporaryDirectory(prefix="mlockwipe-fuzz-") as directory:
        path, out = Path(directory, "scripts"), Path(directory, "out")
        Path(directory).chmod(0o755)
        path.write_text(combined(scripts))
        marked = Marked()
        with out.open("wb") as output, Path(directory, "err").open("w+b") as errors:
            process = subprocess.Popen(
                [*prefix, compiled("fuzzed"), str(path)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=marked.environment,
            )  # fmt: skip
            try:
                process.wait(_SECONDS + 5 * len(scripts))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
            left = marked.await_end(timeout=20)
            process.wait()
            errors.seek(0)
            trouble = errors.read().decode(errors="replace")
        seen = [part.partition("\n")[2] for part in out.read_text(errors="replace").split("script ")[1:]]
    if not seen:
        raise RuntimeError(f"{' '.join(prefix)} fuzzed: ended with {process.returncode}: {trouble}")
    seen += [""] * (len(scripts) - len(seen))
    if process.returncode or left or trouble:
        seen[-1] += f"ended with {process.returncode}, left over: {sorted(left.values())}\n{trouble}"
    return seen


def divergent(scripts: Sequence[Script], prefix: Sequence[str]) -> list[Divergence]:
    bare, other = outcomes(scripts, ()), outcomes(scripts, prefix)
    wiped = bool(prefix)
    seen = (Divergence(*one, wiped) for one in zip(scripts, bare, other, strict=True))
    return [one for one in seen if not same(one.bare, one.other, wiped=wiped)]


def steady(found: Sequence[Divergence]) -> list[Divergence]:
    """Those whose bare run comes to the same once more: what made it repeatable may have been left out."""
    again = outcomes([one.script for one in found], ()) if found else []
    return [one for one, bare in zip(found, again, strict=True) if same(one.bare, bare, wiped=False)]


def smallest(found: Divergence, prefix: Sequence[str]) -> Divergence:
    """Leave out what is not needed to see it: halves, quarters and so on. What is seen is never less than once."""
    size = len(found.script.all_lines())
    while size:
        lines = found.script.all_lines()
        parts = [frozenset(map(id, lines[at : at + size])) for at in range(0, len(lines), size)]
        smaller = [found.script.without(part) for part in parts]
        smaller = [one for one in smaller if one.lines and len(one.all_lines()) < len(lines)]
        again = steady(divergent(smaller, prefix)) if smaller else []
        if again:
            found = min(again, key=lambda one: len(one.script.all_lines()))
            size = min(size, len(found.script.all_lines()))
        else:
            size //= 2
    return found


def fuzz(seeds: Sequence[int], prefix: Sequence[str] = SUPERVISED, *, shrink: bool = True) -> Iterator[Divergence]:
    for at in range(0, len(seeds), BATCH):
        for found in divergent([script(seed) for seed in seeds[at : at + BATCH]], prefix):
            yield smallest(found, prefix) if shrink else found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--first", type=int, metavar="SEED", help="of the first script (default: by chance)")
    parser.add_argument("--scripts", type=int, default=400, metavar="N", help="how many (default: 400)")
    parser.add_argument("--bare", action="store_true", help="compare two bare runs, which must be the same")
    parser.add_argument("--as-is", action="store_true", help="don't make what diverges smaller")
    options = parser.parse_args(arguments)
    first = random.randrange(1 << 31) if options.first is None else options.first
    print(f"scripts {first} to {first + options.scripts - 1}", flush=True)
    prefix = () if options.bare else SUPERVISED
    diverged = 0
    for found in fuzz(range(first, first + options.scripts), prefix, shrink=not options.as_is):
        print(found, flush=True)
        diverged += 1
    print(f"{diverged} of {options.scripts} scripts diverged")
    return int(diverged > 0)


if __name__ == "__main__":
    sys.exit(main())

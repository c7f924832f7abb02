# SPDX-License-Identifier: MIT
"""The kernel's own tests of mm, without the series and with it, off and on.

What passes without the series must pass with it. A test whose outcome differs is run twice more on both kernels, for
some of them are of chance. `python -m mlockwipe_lab.kernel_checks.selftests --help` shows its options.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlockwipe.carriers import CARRIERS
from mlockwipe.kernel.build import build, debian_source
from mlockwipe.kernel.packages import cache
from mlockwipe.kernel.series import SERIES
from mlockwipe_lab.kernel_checks.stress import call
from mlockwipe_lab.vm.failures import GuestFailed, fault
from mlockwipe_lab.vm.kernels import Kernel, kernel
from mlockwipe_lab.vm.machine import boot

TIMEOUT = 240.0  # seconds for one program on an emulated processor
MEMORY = 1024  # MiB
AGAIN = 2

# As tools/testing/selftests/mm/run_vmtests.sh runs them; what needs hugetlb pages or NUMA is left out.
COMMANDS = (
    "map_fixed_noreplace",
    "map_populate",
    "gup_test -u",
    "gup_test -a",
    "gup_test -ct -F 0x1 0 19 0x1000",
    "gup_longterm",
    "uffd-unit-tests",
    "uffd-stress anon 20 4",
    "uffd-stress shmem 20 4",
    "uffd-stress shmem-private 20 4",
    "on-fault-limit",
    "mlock-random-test",
    "mlock2-tests",
    "mlock_wipe",
    "mrelease_test",
    "mremap_test",
    "mremap_dontunmap",
    "madv_populate",
    "memfd_secret",
    "ksm_tests -M -p 10",
    "ksm_tests -U",
    "ksm_tests -Z -p 10 -z 0",
    "ksm_tests -Z -p 10 -z 1",
    "ksm_tests -P -s 10",
    "ksm_functional_tests",
    "soft-dirty",
    "pagemap_ioctl",
    "cow",
    "khugepaged",
    "khugepaged -s 2",
    "transhuge-stress -d 10",
    "split_huge_page_test",
    "mkdirty",
    "mdwe_test",
    "droppable",
    "mseal_test",
    "migration",
    "compaction_test",
)

_TAP = re.compile(r"^(?:# )?(ok|not ok)\s+\d+\s*-?\s*(.*)$", re.MULTILINE)

Outcome = dict[str, str]  # what of a command: 'ok', 'not ok' or 'skip'


@dataclass
class Outcomes:
    """What the commands ended with in one guest. `trouble`: a complaint of the kernel, or why the guest failed."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    trouble: str | None = None


def outcome(told: dict[str, Any]) -> Outcome:
    """Each line of TAP, and the status of the whole."""
    seen: Outcome = {}
    for verdict, name in _TAP.findall(told["said"]):
        plain = re.sub(r"0x[0-9a-f]+|\d{4,}", "N", name).strip()
        skipped = re.search(r"#\s*SKIP", plain)
        seen[re.sub(r"\s*#\s*SKIP.*", "", plain)] = "skip" if skipped else verdict
    status = told["status"]
    seen["status"] = "skip" if status == 4 else "ok" if status == 0 else f"not ok ({status})"
    return seen


def compiled(series: str) -> Path:
    """The directory of the tests, compiled from the sources with the series. Raises CalledProcessError."""
    build(series)
    tree, place = debian_source(series), cache() / f"selftests-{series}"
    name = "mm" if (tree / "tools/testing/selftests/mm").exists() else "vm"
    place.mkdir(exist_ok=True)
    headers = ["make", "--silent", "-C", str(tree), f"O={place}/headers", "headers"]
    subprocess.run(headers, check=True, capture_output=True)
    tests = ["make", "--keep-going", "-C", str(tree / "tools/testing/selftests" / name), f"OUTPUT={place}"]
    tests += [f"KHDR_INCLUDES=-isystem {place}/headers/usr/include"]
    tests += ["CPPFLAGS=-DKSFT_SKIP=4"]  # khugepaged.c of 6.12.117 uses it without its header
    programs = dict.fromkeys(command.split()[0] for command in COMMANDS)
    ran = subprocess.run([*tests, *(f"{place}/{program}" for program in programs)], capture_output=True, text=True)
    (place / "make.log").write_text(ran.stdout + ran.stderr)
    if missing := [program for program in programs if not (place / program).exists()]:
        print(f"not compiled, see {place}/make.log (libcap-dev? libnuma-dev?): {', '.join(missing)}", file=sys.stderr)
    return place


def run(booted: Kernel, append: Sequence[str], place: Path, commands: Sequence[str]) -> Outcomes:
    seen = Outcomes()
    try:
        with boot(booted, append=append, memory=MEMORY) as machine:
            for command in commands:
                program, *arguments = command.split()
                if not (place / program).exists():
                    continue
                argv = ["sh", "-c", 'cd "$0" && exec "./$@"', str(place), program, *arguments]
                told = call(machine, "run", TIMEOUT + 60, argv=argv, limit=TIMEOUT)
                seen.outcomes[command] = outcome(told)
            seen.trouble = fault(machine.console)
    except GuestFailed as failed:
        seen.trouble = str(failed)
    return seen


def worse(before: Outcomes, after: Outcomes) -> Iterator[tuple[str, str]]:
    """The commands and lines that did not fail before, and do now."""
    for command, lines in after.outcomes.items():
        there = before.outcomes.get(command, {})
        for line, verdict in lines.items():
            if verdict.startswith("not ok") and not there.get(line, "").startswith("not ok"):
                yield command, line


def merge(first: Outcomes, second: Outcomes) -> None:
    """A line that passed once can pass."""
    for command, lines in second.outcomes.items():
        for line, verdict in lines.items():
            if verdict == "ok" or line not in first.outcomes.get(command, {}):
                first.outcomes.setdefault(command, {})[line] = verdict


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mlockwipe_lab.kernel_checks.selftests", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--series", choices=SERIES, default="6.12", help="(default: 6.12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all outcomes to FILE")
    options = parser.parse_args()
    place = compiled(options.series)
    before, after = (kernel(f"{kind}-{options.series}") for kind in ("unpatched", "patched"))
    stock = CARRIERS["none"].append
    runs = {
        "without": (before, stock),
        "off": (after, (*stock, "init_mlocked_on_free=0")),
        "on": (after, CARRIERS["boot-option"].append),
    }
    seen = {name: run(booted, append, place, COMMANDS) for name, (booted, append) in runs.items()}
    good = all(tested.trouble is None for tested in seen.values())
    for name in ("off", "on"):
        for _ in range(AGAIN):
            commands = list(dict.fromkeys(command for command, _ in worse(seen["without"], seen[name])))
            for other in ("without", name):
                if commands:
                    merge(seen[other], run(*runs[other], place, commands))
    for name, tested in seen.items():
        verdicts = [verdict.split(" (")[0] for lines in tested.outcomes.values() for verdict in lines.values()]
        counts = {verdict: verdicts.count(verdict) for verdict in ("ok", "not ok", "skip")}
        print(f"{name}: {len(tested.outcomes)} programs, {counts}; the kernel says {tested.trouble or 'nothing'}")
    for name in ("off", "on"):
        for command, line in worse(seen["without"], seen[name]):
            good = False
            print(f"worse with the option {name}: {command}: {line}")
    if options.json:
        with suppress(OSError):
            options.json.write_text(json.dumps({name: vars(tested) for name, tested in seen.items()}, indent=2))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

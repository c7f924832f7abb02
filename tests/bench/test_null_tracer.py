# SPDX-License-Identifier: MIT
"""What the supervisor is compared with really stops at the calls, as often as it says."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.c_programs import needs_gcc

CALLS = 64
needs_two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two CPUs")


@needs_gcc
@pytest.mark.needs_program("strace", "strace")
@pytest.mark.parametrize(
    ("options", "on", "to_the_end"),
    [
        ([], CALLS, 0),
        (["--pin"], CALLS, 0),
        (["--twice"], CALLS, CALLS),
        (["--pin", "--twice"], CALLS, CALLS),
        pytest.param(["--apart"], CALLS, 0, marks=needs_two_cpus),
        pytest.param(["--apart", "--twice"], CALLS, CALLS, marks=needs_two_cpus),
    ],
)
def test_it_stops_once_or_twice_at_each_call(
    options: list[str], on: int, to_the_end: int, programs: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    traced = [str(programs / "null_tracer"), *options, "munmap", str(programs / "unmap"), "locked", str(CALLS)]
    done = subprocess.run(
        ["strace", "-o", str(log), "-e", "trace=ptrace", *traced], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("munmap ")
    requests = Counter(line.removeprefix("ptrace(").partition(",")[0] for line in log.read_text().splitlines())
    few = range(20)  # munmaps of the dynamic linker and of malloc, and the stop of exec
    assert requests["PTRACE_CONT"] - on in few
    assert requests["PTRACE_SYSCALL"] - to_the_end in (few if to_the_end else [0])


@needs_gcc
@needs_two_cpus
def test_the_command_runs_on_the_cpu_it_is_bound_to(programs: Path) -> None:
    first, second, *others = sorted(os.sched_getaffinity(0))
    show = "import os; print(sorted(os.sched_getaffinity(0)))"
    for options, cpus in ([], [first, second, *others]), (["--pin"], [first]), (["--apart"], [second]):
        done = subprocess.run(
            [str(programs / "null_tracer"), *options, "munmap", sys.executable, "-c", show],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.strip() == str(cpus)

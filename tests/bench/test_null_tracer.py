# SPDX-License-Identifier: MIT
"""What the supervisor is compared with really stops at the calls, as often as it says."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.c_programs import needs_gcc

CALLS = 64


@needs_gcc
@pytest.mark.needs_program("strace", "strace")
@pytest.mark.parametrize(
    ("options", "on", "to_the_end"),
    [([], CALLS, 0), (["--pin"], CALLS, 0), (["--twice"], CALLS, CALLS), (["--pin", "--twice"], CALLS, CALLS)],
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

# SPDX-License-Identifier: MIT
"""Programs in a control group of their own: what holds for them does not hold for their keepers."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlockwipe.contract.memory_cgroup import memory_cgroup
from tests.support.attaching import MLOCKWIPE, PART, obedient
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import run_supervised

pytestmark = needs_gcc


@contextmanager
def group(kind: str) -> Iterator[Path]:
    """An empty group of version 2, or of the controller `kind` in version 1, which this process may fill."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith(f"{kind} ") or (rest.startswith("cgroup ") and kind in rest.split(" ")[2].split(",")):
            at = Path(fields.split(" ")[4], f"mlockwipe-test-{os.getpid()}")
            break
    else:
        pytest.skip(f"{kind} is not mounted here")
    try:
        at.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield at
    finally:
        if at.exists():
            at.rmdir()


def within(at: Path) -> tuple[str, ...]:
    return ("sh", "-c", f'echo $$ >{at}/cgroup.procs && exec "$@"', "sh")


def test_a_group_that_the_program_has_left_can_be_removed() -> None:
    with group("cgroup2") as at, obedient(1, (*MLOCKWIPE, "run", "--", *within(at))) as (program, processes):
        (pid,) = processes.named("obedient")
        assert (at / "cgroup.procs").read_text() == f"{pid}\n"
        (at.parent / "cgroup.procs").write_text(str(pid))
        at.rmdir()
        program.order("x")
        assert program.end() == 0


def test_a_program_that_is_killed_while_it_is_frozen_is_wiped_at_once() -> None:
    with group("cgroup2") as at, obedient(1, (*MLOCKWIPE, "run", "--", *within(at))) as (program, processes):
        (pid,) = processes.named("obedient")
        (at / "cgroup.freeze").write_text("1")
        os.kill(pid, signal.SIGKILL)
        try:
            program.end()
        finally:
            (at / "cgroup.freeze").write_text("0")
        pages = program.look()
        assert (pages.total, pages.dirty) == (PART, 0)


def test_a_program_may_have_other_processors_than_the_supervisor() -> None:
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        pytest.skip("there is one processor")
    with group("cpuset") as at:
        (at / "cpuset.mems").write_text((at.parent / "cpuset.mems").read_text())
        (at / "cpuset.cpus").write_text(str(processors[-1]))
        start = ("taskset", "-c", str(processors[0]), *MLOCKWIPE, "run", "--", *within(at))
        with obedient(1, start) as (program, _):
            program.order("x")
            assert program.end() == 0
            pages = program.look()
            assert (pages.total, pages.dirty) == (PART, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_wipe_of_a_childs_copies_takes_no_memory_of_the_programs_group() -> None:
    size = 20 << 20
    with memory_cgroup(size + (2 << 20)) as join:
        if join is None:
            pytest.skip("no memory control group can be made here")
        (at,) = (path for path in Path("/sys/fs/cgroup").glob(f"**/mlockwipe-{os.getpid()}") if path.is_dir())
        outcome = run_supervised([*within(at), compiled("forks"), str(size)])
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.pages_wiped >= size // 4096

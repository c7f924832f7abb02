# SPDX-License-Identifier: MIT
"""Everything that is killed together, and the secret in it: `attach` outside keeps it covered, `run` inside does not.

`run` is killed with the program then, its guardian and the keepers too, and nobody is left to wipe. Outside, `attach`
outlives it: a keeper that is killed halts before it lets go of the memory, until its tracer has wiped that.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mlockwipe.contract.witness import Pages
from tests.support.attaching import PART, UNSHARE, Obedient, attaching, obedient
from tests.support.c_programs import needs_gcc
from tests.support.running import MLOCKWIPE, Marked

pytestmark = needs_gcc

RUN = (MLOCKWIPE, "run", "--")
Kill = Callable[[Obedient, Marked], None]
Domain = tuple[tuple[str, ...], Kill]


def _init(program: Obedient, processes: Marked) -> None:
    program.aim_at_child()
    program.kill()


def _each(program: Obedient, processes: Marked) -> None:
    """As `systemctl kill -s KILL` does: a list, a SIGKILL for each on it, and again."""
    while tasks := processes.processes():
        for pid in tasks:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _hierarchy() -> Path:
    """Where cgroup v2 is mounted, if it is new enough for cgroup.kill (Linux 5.14)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    pytest.skip("cgroup v2 is not mounted here")


@contextmanager
def _cgroup() -> Iterator[Domain]:
    try:
        group = Path(tempfile.mkdtemp(prefix="mlockwipe-test-", dir=_hierarchy()))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        join = f'echo $$ >{group}/cgroup.procs && exec "$@"'
        yield ("sh", "-c", join, "sh"), lambda program, processes: _write(group / "cgroup.kill")
    finally:
        group.rmdir()


def _write(file: Path) -> None:
    file.write_text("1")


@pytest.fixture(params=[pytest.param("pid-namespace", marks=pytest.mark.needs_pid_namespace), "each", "cgroup"])
def domain(request: pytest.FixtureRequest) -> Iterator[Domain]:
    """How a program is put into what will be killed, and how that is done."""
    match request.param:
        case "pid-namespace":
            yield UNSHARE, _init
        case "each":
            yield (), _each
        case "cgroup":
            with _cgroup() as found:
                yield found


# The domain's first process is not the program, or its end would be that of the domain.
SHELL = ("sh", "-c", '"$@"; exit $?', "sh")


def _pid(processes: Marked) -> int:
    (pid,) = processes.named("obedient")
    return pid


@pytest.mark.parametrize("threads", [1, 4])
def test_attach_outside_of_it_leaves_no_page(domain: Domain, threads: int) -> None:
    prefix, kill = domain
    for _ in range(5):
        with (
            obedient(threads, (*prefix, *SHELL)) as (program, processes),
            attaching(pid := str(_pid(processes))) as to,
        ):
            to.await_covered(int(pid))
            assert program.tell("ls") == ["locked", "ran it"]
            kill(program, processes)
            program.end()
            assert to.end() == 0
            pages = program.look()
            assert (pages.total, pages.zero) == (2 * PART, 2 * PART)


def test_run_inside_of_it_leaves_every_page(domain: Domain) -> None:
    """Not each time: it takes the kernel some microseconds to kill them all."""
    prefix, kill = domain
    assert any(_left_by_run((*prefix, *SHELL), kill).dirty == PART for _ in range(20))


def test_run_inside_of_it_survives_the_kill_of_the_program(domain: Domain) -> None:
    prefix, _ = domain
    pages = _left_by_run((*prefix, *SHELL), lambda program, processes: os.kill(_pid(processes), signal.SIGKILL))
    assert (pages.total, pages.zero) == (PART, PART)


def _left_by_run(prefix: tuple[str, ...], kill: Kill) -> Pages:
    with obedient(1, (*prefix, *RUN)) as (program, processes):
        kill(program, processes)
        program.end()
        assert not processes.await_end()
        return program.look()

# SPDX-License-Identifier: MIT
"""Programs whose file gives privileges, which seccomp does not let an ordinary user's program have: that is said."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlockwipe.linux.privileged_file import CAPABILITIES, NONE, SET_ID, privilege_of
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import Outcome, run_bare
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody

needs_setcap = pytest.mark.needs_program("setcap", "libcap2-bin")
LOCKS = "mlock 1"  # arguments of tests/programs/locks.c, which shows its pages to a pipe
WAY_OUT = "AmbientCapabilities= in a unit of systemd"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others may look into."""
    if os.geteuid():
        pytest.skip("only root can give a file capabilities")
    with tempfile.TemporaryDirectory(prefix="mlockwipe-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def with_capabilities(program: str, place: Path) -> str:
    path = shutil.copy(program, place)
    subprocess.run(["setcap", "cap_ipc_lock=+ep", path], check=True)
    return str(path)


def run_as_nobody(*command: str) -> Outcome:
    with mlockwipe_for_nobody() as mlockwipe:
        return run_bare([*AS_NOBODY, *mlockwipe, "run", "--", *command], cwd="/")


@needs_setcap
@pytest.mark.parametrize(("mode", "privilege"), [(0o755, NONE), (0o4755, SET_ID), (0o2755, SET_ID)])
def test_a_file_tells_how_it_gives_privileges(mode: int, privilege: int, place: Path) -> None:
    program = Path(shutil.copy("/bin/true", place))
    program.chmod(mode)
    assert privilege_of(str(program)) == privilege
    program.chmod(0o755)
    assert privilege_of(with_capabilities(str(shutil.copy("/bin/true", place / "x")), place / "true")) == CAPABILITIES
    assert privilege_of(str(place / "nonesuch")) == NONE


@needs_nobody
@needs_setcap
@needs_gcc
def test_file_capabilities_that_are_lost_are_said_once_with_a_way_out(place: Path) -> None:
    program = with_capabilities(compiled("locks"), place)
    outcome = run_as_nobody("sh", "-c", f"{program} {LOCKS}; {program} {LOCKS}; {program} {LOCKS}; exit 7")
    assert outcome.status == 7
    (said,) = outcome.err.splitlines()
    assert said.startswith(f"mlockwipe: {program} has file capabilities and runs without them here: ")
    assert WAY_OUT in said


@needs_nobody
@needs_setcap
@pytest.mark.parametrize("locks", [False, True], ids=["never-locks", "locks"])
@needs_gcc
def test_they_are_said_once_of_the_command_itself_too(locks: bool, place: Path) -> None:
    program = with_capabilities(compiled("locks") if locks else "/bin/true", place)
    assert run_as_nobody(program, *LOCKS.split()).err.count(WAY_OUT) == 1


@needs_setcap
@needs_gcc
def test_nothing_is_said_where_nothing_is_lost(place: Path) -> None:
    program = with_capabilities(compiled("locks"), place)
    run = [sys.executable, "-m", "mlockwipe", "run", "--", "sh", "-c", f"{program} {LOCKS}; {program} {LOCKS}"]
    assert run_bare(run).err == ""  # root
    with mlockwipe_for_nobody() as mlockwipe:  # it was lost before
        no_new_privs = ["setpriv", "--no-new-privs", *mlockwipe, "run", "--", program, *LOCKS.split()]
        assert run_bare([*AS_NOBODY, *no_new_privs], cwd="/").err == ""

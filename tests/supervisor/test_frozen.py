# SPDX-License-Identifier: MIT
"""Programs in a control group that is frozen: nobody waits for them without a bound, nor is anything of them lost."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.attaching import PART, attaching, obedient, tasks
from tests.support.c_programs import needs_gcc
from tests.support.running import TIMEOUT, marked

pytestmark = needs_gcc

# Helpers stay in the control group of their program, as they do for an ordinary user.
STAYS = (
    "import sys; from mlockwipe.linux import cgroup; cgroup.join_ours = lambda pid: None; "
    "from mlockwipe.cli import main; sys.exit(main())"
)
# As much as is cleared by the worker.
LARGE = """
import ctypes, os, signal
from mlockwipe.linux import mm
secret = mm.mmap(0, 4 << 20, 3, 0x22)
mm.mlock(secret, 4 << 20)
ctypes.memset(secret, 1, 4 << 20)
print(os.getpid(), flush=True)
signal.pause()
"""
Freeze = Callable[[bool], object]


def _mounted(kind: str, option: str) -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith(kind + " ") and option in after.split(" ")[2].split(","):
            return Path(before.split()[4])
    pytest.skip(f"no {kind} is mounted here that freezes")


@contextmanager
def _group(parent: Path) -> Iterator[Path]:
    try:
        group = Path(tempfile.mkdtemp(prefix="mlockwipe-test-", dir=parent))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield group
    finally:
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError):
                group.rmdir()
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture(params=["cgroup2", "cgroup"])
def group(request: pytest.FixtureRequest) -> Iterator[tuple[Path, Freeze]]:
    """A control group, and how it is frozen and thawed. It is thawed in the end."""
    old = request.param == "cgroup"
    with _group(_mounted(request.param, "freezer" if old else "rw")) as group:
        file = group / ("freezer.state" if old else "cgroup.freeze")
        words = ("THAWED", "FROZEN") if old else ("0", "1")

        def freeze(frozen: bool) -> None:
            file.write_text(words[frozen])
            while not old and f"frozen {int(frozen)}" not in (group / "cgroup.events").read_text():
                time.sleep(0.001)

        try:
            yield group, freeze
        finally:
            freeze(False)


def _put(pid: int, group: Path) -> None:
    (group / "cgroup.procs").write_text(str(pid))


@pytest.mark.parametrize("threads", [1, 3])
def test_one_that_is_frozen_at_attach_is_covered_when_it_is_thawed(group: tuple[Path, Freeze], threads: int) -> None:
    place, freeze = group
    with obedient(threads) as (program, _), obedient() as (other, _):
        _put(program.pid, place)
        freeze(True)
        with attaching(str(program.pid), str(other.pid)) as attachment:
            attachment.await_covered(other.pid)  # meanwhile
            time.sleep(2)
            freeze(False)
            attachment.await_covered(program.pid)
            assert program.tell("fs") == ["had a child", "ran it"]
            program.kill()
            program.end()
            pages = program.look()
            assert (pages.total, pages.dirty) == (2 * PART, 0)
            other.kill()
            assert attachment.end() == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_attach_ends_though_a_program_is_frozen_and_leaves_it_as_it_was(
    group: tuple[Path, Freeze], threads: int
) -> None:
    place, freeze = group
    with obedient(threads) as (program, _):
        before = tasks(program.pid)
        _put(program.pid, place)
        freeze(True)
        with attaching(str(program.pid)) as attachment:
            time.sleep(2)
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
        freeze(False)
        assert program.tell("fs") == ["had a child", "ran it"]
        assert tasks(program.pid) == before


@pytest.mark.parametrize("mlockwipe", [("-m", "mlockwipe"), ("-c", STAYS)], ids=["helpers-leave", "helpers-stay"])
def test_a_program_is_wiped_though_its_helpers_are_frozen(
    group: tuple[Path, Freeze], mlockwipe: tuple[str, str], tmp_path: Path
) -> None:
    place, freeze = group
    old = (place / "freezer.state").exists()
    report = tmp_path / "report.json"
    join = f'echo $$ >{place}/cgroup.procs && exec "$@"'
    command = (sys.executable, "-P", *mlockwipe, "run", "--report", str(report), "--", "sh", "-c", join, "sh")
    with (
        marked() as processes,
        subprocess.Popen(
            [*command, sys.executable, "-c", LARGE], stdout=subprocess.PIPE, env=processes.environment
        ) as front,
    ):
        assert front.stdout is not None
        pid = int(front.stdout.readline())
        freeze(True)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        if old:  # what is frozen does not die either
            freeze(False)
        assert front.wait(TIMEOUT) == -signal.SIGKILL
        assert time.monotonic() - began < 10
        assert not [name for name in processes.processes().values() if name == "mlockwipe-keep"]
    assert json.loads(report.read_text())["pages_wiped"] == {"SIGKILL": 1024}

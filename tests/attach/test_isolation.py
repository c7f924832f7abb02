# SPDX-License-Identifier: MIT
"""`attach --all`: nobody's program stops the cover of another's, nor keeps the watcher from ending."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mlockwipe.attach.watch import Candidate, _in_turn
from mlockwipe.linux import procfs, user_namespace
from tests.support.attaching import PART, Attaching, Obedient, attaching, obedient, tasks
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import TIMEOUT, marked
from tests.support.unprivileged import AS_NOBODY, needs_nobody, nobody

pytestmark = needs_gcc
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SETTING = (
    "import sys; from mlockwipe.attach import covering, watch; {}; from mlockwipe.cli import main; sys.exit(main())"
)


@contextmanager
def watching(tmp_path: Path, *names: str, setting: str = "pass") -> Iterator[Attaching]:
    """`attach --all`, with a policy that lets in test programs of these names alone."""
    policy = tmp_path / "policy.toml"
    policy.write_text("\n".join(f"[[attach]]\nexecutable = {json.dumps(compiled(name))}" for name in names))
    prefix = (sys.executable, "-P", "-c", SETTING.format(setting))
    with attaching("--all", "--policy", str(policy), prefix=prefix) as attachment:
        yield attachment


def supervisor_of(pid: int) -> int:
    return int(procfs.status_field(pid, "TracerPid"))


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_covered_to_the_end(program: Obedient) -> bool:
    program.kill()
    program.end()
    pages = program.look()
    return (pages.total, pages.dirty) == (PART, 0)


def test_each_program_has_a_supervisor_of_its_own_and_may_lose_it(tmp_path: Path) -> None:
    with obedient() as (one, _), obedient(3) as (other, _), watching(tmp_path, "obedient") as attachment:
        attachment.await_covered(one.pid, other.pid)
        assert supervisor_of(one.pid) != supervisor_of(other.pid)
        assert attachment.process.pid not in (supervisor_of(one.pid), supervisor_of(other.pid))
        assert one.tell("?") == ["well"]  # it has gone on, or SIGKILL to the supervisor may interrupt its call
        os.kill(supervisor_of(one.pid), signal.SIGKILL)
        attachment.await_covered(one.pid)  # by another
        assert any(
            "was killed by signal 9: what it covered goes on without cover" in line for line in attachment.said
        )
        assert one.tell("?") == ["well"]
        assert is_covered_to_the_end(other)
        assert is_covered_to_the_end(one)
        attachment.send(signal.SIGINT)
        assert attachment.end() == 0
        assert attachment.report["pages_wiped"] == {"SIGKILL": 4 * PART}


def test_a_program_whose_supervisors_die_is_not_tried_for_ever(tmp_path: Path) -> None:
    with (
        obedient() as (one, _),
        watching(tmp_path, "obedient", setting="watch._PERIOD = 0.05") as attachment,
    ):
        for _ in range(3):
            attachment.await_covered(one.pid)
            time.sleep(0.3)  # looked at while it is covered, it keeps its count
            os.kill(supervisor_of(one.pid), signal.SIGKILL)
        with obedient() as (other, _):
            attachment.await_covered(other.pid)
            time.sleep(0.5)
            assert supervisor_of(one.pid) == 0
            assert one.tell("?") == ["well"]
            assert is_covered_to_the_end(other)
        attachment.send(signal.SIGTERM)
        assert attachment.end() == 0
        assert sum("was killed by signal 9" in line for line in attachment.said) == 1


def test_a_supervisor_that_hangs_does_not_keep_the_watcher_from_ending(tmp_path: Path) -> None:
    with obedient(3) as (one, _), obedient() as (other, _):
        before = tasks(one.pid), tasks(other.pid)
        with watching(tmp_path, "obedient", setting="watch._PATIENCE = 1.0") as attachment:
            attachment.await_covered(one.pid, other.pid)
            assert one.tell("?") == ["well"]  # it has gone on
            os.kill(supervisor_of(one.pid), signal.SIGSTOP)
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
            assert (
                f"the supervisor of process {one.pid} (obedient) did not end in time and was killed"
                in attachment.said
            )
            assert attachment.said.count("detached: the programs go on without cover") == 1
        wait_until(lambda: not one.process.poll() and (tasks(one.pid), tasks(other.pid)) == before)
        assert one.tell("?f") == ["well", "had a child"]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with obedient() as (one, _), watching(tmp_path, "obedient", setting="watch._PATIENCE = 60.0") as attachment:
        attachment.await_covered(one.pid)
        assert one.tell("?") == ["well"]  # it has gone on
        os.kill(supervisor_of(one.pid), signal.SIGSTOP)
        attachment.send(signal.SIGINT)
        time.sleep(0.2)
        attachment.send(signal.SIGINT)
        began = time.monotonic()
        assert attachment.end() == 0
        assert time.monotonic() - began < 30
        assert one.tell("?") == ["well"]


def test_a_supervisor_that_does_not_answer_lets_go_of_its_program(tmp_path: Path) -> None:
    with obedient() as (one, _), watching(tmp_path, "obedient", setting="covering._SILENCE = 2.0") as attachment:
        attachment.await_covered(one.pid)
        assert one.tell("?") == ["well"]  # it has gone on
        os.kill(supervisor_of(one.pid), signal.SIGSTOP)
        assert one.process.stdin is not None
        attachment.await_covered(one.pid)
        assert any("did not answer any more and was killed" in line for line in attachment.said)
        assert is_covered_to_the_end(one)


def test_the_supervisors_end_with_a_watcher_that_is_killed(tmp_path: Path) -> None:
    with obedient(3) as (one, processes):
        before = tasks(one.pid)
        with watching(tmp_path, "obedient") as attachment:
            attachment.await_covered(one.pid)
            attachment.send(signal.SIGKILL)
            attachment.process.wait(TIMEOUT)
            wait_until(lambda: tasks(one.pid) == before)
        assert processes.named("mlockwipe-keep") == []
        assert one.tell("?") == ["well"]


def test_relatives_share_a_supervisor_for_they_share_pages(tmp_path: Path) -> None:
    with marked() as processes, watching(tmp_path, "family") as attachment:
        with subprocess.Popen(
            [compiled("family"), "3"], stdout=subprocess.PIPE, env=processes.environment, cwd="/"
        ) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"ready\n"
            family = [parent.pid, *procfs.children(parent.pid)]
            attachment.await_covered(*family)
            assert len({supervisor_of(pid) for pid in family}) == 1
            parent.kill()
        attachment.send(signal.SIGINT)
        assert attachment.end() == 0
        assert attachment.report["pages_wiped"] == {"SIGKILL": 4}


@as_root
@needs_nobody
def test_many_programs_of_a_user_share_their_supervisors_and_others_have_their_own(tmp_path: Path) -> None:
    with ExitStack() as stack:
        many = [stack.enter_context(obedient(1, AS_NOBODY))[0] for _ in range(5)]
        roots, _ = stack.enter_context(obedient())
        attachment = stack.enter_context(watching(tmp_path, "obedient", setting="watch._MOST_OF_A_USER = 2"))
        attachment.await_covered(roots.pid, *(program.pid for program in many))
        used = {supervisor_of(program.pid) for program in many}
        assert len(used) == 2
        assert supervisor_of(roots.pid) not in used
        said = (
            f"user {nobody().pw_name} has more programs that hold locked memory than the 2 supervisors for them: "
            "the further ones share those"
        )
        assert attachment.said.count(said) == 1
        for supervisor in used:
            os.kill(supervisor, signal.SIGSTOP)
        assert is_covered_to_the_end(roots)
        for supervisor in used:
            os.kill(supervisor, signal.SIGCONT)
        assert all(is_covered_to_the_end(program) for program in many)


def test_when_all_supervisors_are_taken_a_user_without_any_gets_one(tmp_path: Path) -> None:
    setting = "watch._MOST = 0"
    with (
        obedient() as (one, _),
        obedient() as (two, _),
        watching(tmp_path, "obedient", setting=setting) as attachment,
    ):
        attachment.await_covered(one.pid, two.pid)
        assert supervisor_of(one.pid) == supervisor_of(two.pid)


def test_one_of_each_user_comes_before_a_second_of_any() -> None:
    found = [Candidate(pid, "", owner, pid) for pid, owner in ((1, 7), (2, 7), (3, 7), (4, 8), (5, 0), (6, 8))]
    assert [one.pid for one in _in_turn(found)] == [1, 4, 5, 2, 6, 3]


@as_root
@needs_nobody
@pytest.mark.needs_program("unshare", "util-linux")
def test_whoever_made_a_user_namespace_is_behind_all_users_in_it() -> None:
    sleeps = subprocess.Popen([*AS_NOBODY, "unshare", "--user", "cat"], stdin=subprocess.PIPE, cwd="/")
    try:
        wait_until(lambda: procfs.executable(sleeps.pid).endswith("cat"))
        Path(f"/proc/{sleeps.pid}/uid_map").write_text("0 100000 1000")
        assert user_namespace.owner(sleeps.pid, 100007) == nobody().pw_uid
        assert user_namespace.owner(os.getpid(), 100007) == 100007
    finally:
        sleeps.communicate()


@as_root
def test_users_in_a_user_namespace_of_root_are_told_apart() -> None:
    sleeps = subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: procfs.executable(sleeps.pid).endswith("cat"))
        assert user_namespace.owner(sleeps.pid, 100007) == 100007
    finally:
        sleeps.communicate()

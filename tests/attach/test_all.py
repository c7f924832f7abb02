# SPDX-License-Identifier: MIT
"""`mlockwipe attach --all`. The policies here let in nothing but what the tests have started."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlockwipe.attach.holders import describe, holders
from mlockwipe.linux import procfs
from tests.support.attaching import MLOCKWIPE, PART, attached, attaching, obedient, tasks
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import run_bare

pytestmark = needs_gcc


@pytest.fixture
def policy(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "policy.toml"
    file.write_text(f'[[attach]]\nexecutable = "{compiled("obedient")}"\n')
    yield str(file)


def test_what_holds_locked_memory_is_found_before_and_after_the_start(policy: str) -> None:
    with obedient() as (first, _), attaching("--all", "--policy", policy) as attachment:
        attachment.await_covered(first.pid)
        with obedient(3) as (second, _):
            attachment.await_covered(second.pid)
            for program in (first, second):
                program.kill()
                program.end()
                pages = program.look()
                assert (pages.total, pages.dirty) == (PART, 0)
            attachment.send(signal.SIGTERM)
            assert attachment.end() == 0
            assert attachment.report["command"] == ["attach", "--all"]
            assert attachment.report["processes_attached"] == 2


def test_detach_leaves_them_as_they_were(policy: str) -> None:
    with obedient(3) as (program, _):
        before = tasks(program.pid)
        with attaching("--all", "--policy", policy) as attachment:
            attachment.await_covered(program.pid)
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
        assert tasks(program.pid) == before
        assert program.tell("?") == ["well"]


def test_who_holds_less_is_left_alone(policy: str) -> None:
    with obedient() as (small, _), obedient() as (large, _):
        large.tell("ll")  # that is what the witness has room for
        held = int(procfs.Status(small.pid)["VmLck"].split()[0])
        with attaching("--all", "--policy", policy, "--min-locked", f"{held + 4}K") as attachment:
            attachment.await_covered(large.pid)
            assert procfs.Status(small.pid)["TracerPid"] == "0"


def test_who_is_excluded_or_under_a_supervisor_is_left_alone(policy: str) -> None:
    with open(policy, "a", encoding="utf-8") as file:
        file.write('[[exclude]]\nuser = "nobody"\n')
    as_nobody = ("setpriv", "--reuid=nobody", "--clear-groups") if os.geteuid() == 0 else ()
    with (
        obedient(1, as_nobody) as (excluded, _),
        obedient() as (covered, _),
        attached(covered) as other,
        obedient() as (found, _),
        attaching("--all", "--policy", policy) as attachment,
    ):
        attachment.await_covered(found.pid)
        if as_nobody:
            assert procfs.Status(excluded.pid)["TracerPid"] == "0"
        assert procfs.Status(covered.pid)["TracerPid"] == str(other.process.pid)
        assert all(str(covered.pid) not in line for line in attachment.said)


def test_a_bad_policy_is_said_before_anything_is_done(policy: str) -> None:
    Path(policy).write_text("[[attach]]\nexe = 1\n")
    outcome = run_bare([*MLOCKWIPE, "attach", "--all", "--policy", policy])
    assert outcome.status == 125
    assert outcome.err == (
        f"mlockwipe: the policy {policy}, [[attach]] number 1 has 'exe': it may have executable, user, unit, "
        "max-locked\n"
    )


def test_what_is_known_of_a_holder() -> None:
    with obedient() as (program, _):
        found = {pid: describe(pid, status, locked) for pid, status, locked in holders(4096) if pid == program.pid}
        process = found[program.pid]
        assert process.executable == compiled("obedient")
        assert process.locked == int(procfs.Status(program.pid)["VmLck"].split()[0]) << 10
        assert process.user == subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
        assert not [pid for pid, _, _ in holders(1 << 50)]

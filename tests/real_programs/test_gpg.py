# SPDX-License-Identifier: MIT
"""GnuPG: gpg-agent locks its secure memory, forks its server and becomes undumpable."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import MLOCKWIPE, Marked, marked, run_bare, run_supervised
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody, nobody

pytestmark = [pytest.mark.needs_program("gpg", "gnupg"), pytest.mark.needs_program("gpg-agent", "gpg-agent")]

# All of one life of a key. It ends with the agent still running, a daemon.
SESSION = """
set -eu
gpg() { command gpg --batch --quiet --no-tty --pinentry-mode loopback --passphrase "" "$@"; }
gpg --quick-generate-key 'A <a@example.org>' ed25519 sign never 2>err
fingerprint=$(gpg --list-keys --with-colons | awk -F: '/^fpr/ {print $10; exit}')
gpg --quick-add-key "$fingerprint" cv25519 encrypt never 2>err
echo message >plain
gpg --sign --output signed plain 2>err
gpg --verify signed 2>err && echo verified
gpg --encrypt --trust-model always --recipient a@example.org --output sealed plain 2>err
gpg --decrypt sealed 2>err
gpg-connect-agent 'getinfo pid' /bye | sed -n 's/^D //p' >agent.pid
gpg --list-secret-keys --with-colons | grep -c ^ssb
"""


@pytest.fixture
def home() -> Iterator[Path]:
    # The path of the agent's socket must be short; that of tmp_path is not.
    with tempfile.TemporaryDirectory(prefix="gpg-", dir="/tmp") as directory:
        yield Path(directory)


def test_a_life_of_a_key_bare(home: Path) -> None:
    with marked() as processes:
        done = _session(home, processes, [])
        agent = _agent(home)
        os.kill(agent, signal.SIGKILL)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "verified\nmessage\n1\n"


def test_a_life_of_a_key_under_supervision_and_its_agent_wiped_when_killed(home: Path) -> None:
    report = home / "report.json"
    with marked() as processes:
        # The front returns though the agent lives on, and nobody holds the pipes of its output open.
        done = _session(home, processes, [MLOCKWIPE, "run", "--report", str(report), "--"])
        assert done.returncode == 0, done.stderr
        assert done.stdout == "verified\nmessage\n1\n"
        before = json.loads(report.read_text())
        assert before["final"] is False
        assert before["status"] == {"exit": 0}
        os.kill(_agent(home), signal.SIGKILL)
    _agent_was_wiped(before, json.loads(report.read_text()))


@needs_nobody
def test_a_life_of_a_key_under_supervision_as_an_unprivileged_user(home: Path) -> None:
    os.chown(home, nobody().pw_uid, nobody().pw_gid)
    report = home / "report.json"
    with mlockwipe_for_nobody() as mlockwipe, marked() as processes:
        done = _session(home, processes, [*AS_NOBODY, *mlockwipe, "run", "--report", str(report), "--"])
        assert done.returncode == 0, done.stderr
        assert done.stdout == "verified\nmessage\n1\n"
        before = json.loads(report.read_text())
        agent = _agent(home)
        assert "NoNewPrivs:\t1\n" in Path(f"/proc/{agent}/status").read_text()
        os.kill(agent, signal.SIGKILL)
    _agent_was_wiped(before, json.loads(report.read_text()))


def _agent_was_wiped(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert after["final"] is True
    assert after["unprotected"] == []
    # 64 KiB of secure memory, the most of it never touched
    assert after["pages_wiped"]["SIGKILL"] > before["pages_wiped"].get("SIGKILL", 0)


def test_an_agent_that_is_started_by_itself_daemonises_and_is_wiped_when_it_is_told_to_end(home: Path) -> None:
    script = """
    export GNUPGHOME="$1"
    gpg-agent --daemon >/dev/null 2>&1
    gpg-connect-agent --no-autostart 'getinfo version' /bye
    gpgconf --kill gpg-agent
    """
    bare = run_bare(["sh", "-c", script, "sh", str(home)])
    supervised = run_supervised(["sh", "-c", script, "sh", str(home)])
    assert bare.status == 0
    assert bare.out.endswith("OK\n")
    assert supervised.result == bare.result
    assert supervised.report["unprotected"] == []
    assert supervised.pages_wiped > 0


def _session(home: Path, processes: Marked, prefix: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*prefix, "sh", "-c", SESSION],
        cwd=home,
        env={**processes.environment, "GNUPGHOME": str(home), "HOME": str(home), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _agent(home: Path) -> int:
    return int((home / "agent.pid").read_text())

# SPDX-License-Identifier: MIT
"""`mlockwipe attach` to a gpg-agent that runs, judged by pages that are held from outside."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlockwipe.linux import procfs
from tests.support.attaching import attaching
from tests.support.held import held, pages_in_use
from tests.support.running import Marked, marked

pytestmark = [
    pytest.mark.needs_program("gpg-agent", "gpg-agent"),
    pytest.mark.needs_program("gpg-connect-agent", "gpgconf"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to hold pages of a program that does not show them"),
]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gpg-", dir="/tmp") as directory:
        yield Path(directory)


def ask(home: Path, processes: Marked, *commands: str) -> str:
    """Commands for the agent: its answers."""
    done = subprocess.run(
        ["gpg-connect-agent", "--no-autostart", *commands, "/bye"],
        env={**processes.environment, "GNUPGHOME": str(home)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def daemon(home: Path, processes: Marked) -> int:
    """An agent that has locked its secure memory and then forked: the copy that it serves with is not locked."""
    environment = {**processes.environment, "GNUPGHOME": str(home)}
    subprocess.run(["gpg-agent", "--daemon"], env=environment, stdout=subprocess.DEVNULL, check=True, timeout=30)
    return int(ask(home, processes, "getinfo pid").split()[1])


def supervised(home: Path, processes: Marked) -> int:
    """An agent as systemd starts it for a user: it is given its socket and does not fork."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "S.gpg-agent"))
        listening.listen()

        def hand_over() -> None:
            os.dup2(listening.fileno(), 3)
            os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="std", LISTEN_PID=str(os.getpid()), GNUPGHOME=str(home))
            os.environ.update(MLOCKWIPE_TEST=processes.mark)
            os.execvp("gpg-agent", ["gpg-agent", "--supervised", "--quiet"])

        pid = os.fork()
        if pid == 0:
            hand_over()
    return int(ask(home, processes, "getinfo pid").split()[1])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)


def test_an_agent_that_is_killed_leaves_its_memory_without_attach(home: Path) -> None:
    with marked() as processes:
        agent = daemon(home, processes)
        with held(agent, pages_in_use(agent, locked=False)) as pages:
            ask(home, processes, "getinfo version")
            kill(agent)
            after = pages.now()
    assert len(after) > 10
    assert sum(any(page) for page in after) == len(after)


def test_an_agent_whose_secure_memory_is_inherited_is_covered_by_all_memory(home: Path) -> None:
    with marked() as processes:
        agent = daemon(home, processes)
        assert procfs.Status(agent)["VmLck"] == "0 kB"
        with held(agent, pages_in_use(agent, locked=False)) as pages:
            with attaching("--all-memory", str(agent)) as attachment:
                attachment.await_covered(agent)
                ask(home, processes, "getinfo version")
                kill(agent)
                assert attachment.end() == 0
            after = pages.now()
    assert len(after) > 10
    assert [page for page in after if any(page)] == []


def test_an_agent_whose_secure_memory_is_inherited_is_told_of(home: Path) -> None:
    with marked() as processes:
        agent = daemon(home, processes)
        with attaching(str(agent)) as attachment:
            attachment.await_said(lambda line: "--all-memory covers them" in line)
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
        assert "OK" in ask(home, processes, "getinfo version")
        kill(agent)


@pytest.mark.parametrize("covered", [True, False])
def test_an_agent_as_systemd_starts_it_has_its_secure_memory_locked(home: Path, covered: bool) -> None:
    with marked() as processes:
        agent = supervised(home, processes)
        assert procfs.Status(agent)["VmLck"] != "0 kB"
        with held(agent, pages_in_use(agent, locked=True)) as pages:
            if covered:
                with attaching(str(agent)) as attachment:
                    attachment.await_covered(agent)
                    ask(home, processes, "getinfo version")
                    kill(agent)
                    assert attachment.end() == 0
            else:
                kill(agent)
            after = pages.now()
    assert after != []
    assert sum(any(page) for page in after) == (0 if covered else len(after))

# SPDX-License-Identifier: MIT
"""Running commands bare and under `mlockwipe run`, and making sure that nothing of them is left."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MLOCKWIPE = str(Path(sys.executable).with_name("mlockwipe"))
TIMEOUT = 120.0  # seconds; only a hang takes so long
_MARK = "MLOCKWIPE_TEST"


@dataclass
class Outcome:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def pages_wiped(self) -> int:
        return sum(self.report.get("pages_wiped", {}).values())

    @property
    def result(self) -> tuple[int, str]:
        return self.status, self.out


class Marked:
    """The processes of one test, known by a variable in the environment that they all inherit."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, _MARK: self.mark}
        # A program of the test suite must not take the settings of whoever runs the suite.
        for name in ("GNUPGHOME", "GPG_AGENT_INFO", "SSH_AUTH_SOCK"):
            self.environment.pop(name, None)

    def processes(self) -> dict[int, str]:
        """The living ones, by name. Those of a keeper and of a supervisor are among them."""
        needle = f"{_MARK}={self.mark}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if needle in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def named(self, name: str) -> list[int]:
        return [pid for pid, comm in self.processes().items() if comm == name]

    def await_end(self, timeout: float = TIMEOUT) -> dict[int, str]:
        """Wait until all of them are gone. Those that don't go are killed and returned."""
        deadline = time.monotonic() + timeout
        while left := self.processes():
            for pid in left:
                if not _await_end_of(pid, deadline - time.monotonic()):
                    self.kill()
                    return left
        return {}

    def kill(self) -> None:
        """Kill them all: programs first, so that those who wipe can end by themselves."""
        for _ in range(100):
            left = self.processes()
            programs = [pid for pid, name in left.items() if not name.startswith("mlockwipe-")]
            for pid in programs or left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                return
            for pid in left:
                _await_end_of(pid, 0.1)


def _await_end_of(pid: int, timeout: float) -> bool:
    """Whether a process, a child or not, has ended within `timeout` seconds."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:  # EINVAL: a task that is no leader of a thread group any more
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))
    finally:
        os.close(pidfd)


@contextmanager
def marked() -> Iterator[Marked]:
    """Processes that may be started within, and must all have ended at its end."""
    processes = Marked()
    try:
        yield processes
    except BaseException:
        processes.kill()
        raise
    left = processes.await_end(timeout=30)
    assert not left, f"left over: {left}"


def run_bare(command: Sequence[str], **options: Any) -> Outcome:
    """Run a command to its end, with nothing of it left."""
    return _run(command, **options)


def run_supervised(
    command: Sequence[str], *, mlockwipe: Sequence[str] = (MLOCKWIPE,), arguments: Sequence[str] = (), **options: Any
) -> Outcome:
    """The same under `mlockwipe run`, with the final report."""
    with tempfile.TemporaryDirectory(prefix="mlockwipe-report-") as directory:
        Path(directory).chmod(0o777)
        report = Path(directory, "report.json")
        outcome = _run([*mlockwipe, "run", "--report", str(report), *arguments, "--", *command], **options)
        if report.exists() and (text := report.read_text()):
            outcome.report = json.loads(text)
        return outcome


def _run(
    command: Sequence[str],
    *,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pass_fds: Sequence[int] = (),
    timeout: float = TIMEOUT,
) -> Outcome:
    with marked() as processes:
        done = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env={**processes.environment, **(env or {})},
            cwd=cwd,
            pass_fds=pass_fds,
            timeout=timeout,
        )
    return Outcome(done.returncode, done.stdout, done.stderr)

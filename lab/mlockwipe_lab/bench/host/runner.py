# SPDX-License-Identifier: MIT
"""Running a workload: bare, under the tracer that does nothing, or under `mlockwipe run`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlockwipe.linux import prctl
from mlockwipe.linux.wait import WALL
from mlockwipe_lab.bench.host.sampling import Rounds, Times

MLOCKWIPE = Path(sys.executable).with_name("mlockwipe")
_PATIENCE = 120  # seconds for one run


class Broken(Exception):
    """A run did not do what was to be measured."""


class Runner:
    """Runs commands one after the other; none begins before all processes of the one before are gone."""

    def __init__(self, programs: Path, rounds: int) -> None:
        self.programs = programs
        self.rounds = rounds
        prctl.become_subreaper()  # what a run leaves behind becomes our child, and can be waited for

    @property
    def fewer_rounds(self) -> int:
        """For what takes long, or is measured in many sizes."""
        return max(3, self.rounds // 2)

    def program(self, name: str) -> str:
        return str(self.programs / name)

    def bare(self, *command: str, environment: Mapping[str, str] | None = None) -> Times:
        return self._times(command, environment)

    def both(
        self,
        *command: str,
        locks: bool = True,
        environment: Mapping[str, str] | None = None,
        rounds: int | None = None,
    ) -> Rounds:
        """In turn bare and under mlockwipe."""
        return Rounds.interleave(
            {
                "bare": lambda: self.bare(*command, environment=environment),
                "mlockwipe": lambda: self.supervised(*command, locks=locks, environment=environment),
            },
            rounds or self.rounds,
        )

    def traced(self, call: str, *command: str, options: Sequence[str] = ()) -> Times:
        """Under the null tracer, stopped at every `call`."""
        return self._times([self.program("null_tracer"), *options, call, *command])

    def supervised(self, *command: str, locks: bool = True, environment: Mapping[str, str] | None = None) -> Times:
        """Under mlockwipe. Broken when something was not protected, or nothing was that `locks`."""
        report = self.programs / "report.json"
        times = self._times([str(MLOCKWIPE), "run", "--report", str(report), "--", *command], environment)
        found = json.loads(report.read_text())
        if found["unprotected"] or bool(found["processes_attached"]) != locks:
            raise Broken(f"mlockwipe did not do its work: {found}")
        return times

    def audited(self, *command: str, left: int) -> Times:
        """Under mlockwipe audit. Broken when it does not find so many ranges `left` uncleared."""
        report = self.programs / "findings.json"
        times = self._times([str(MLOCKWIPE), "audit", "--json", str(report), "--", *command], talks=True)
        found = json.loads(report.read_text())["findings"]
        if len(found) != left:
            raise Broken(f"mlockwipe audit has found {len(found)} ranges instead of {left}")
        return times

    def whole(self, *command: str) -> Times:
        """From the start of a command to its end, as who started it sees it."""
        null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
        start = time.perf_counter_ns()
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=null)
        _, status = os.waitpid(pid, 0)
        end = time.perf_counter_ns()
        if status:
            raise Broken(f"{' '.join(command)}: wait status {status:#x}")
        _reap_all()
        return {"whole": [end - start]}

    def _times(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, *, talks: bool = False
    ) -> Times:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE,
                env={**os.environ, **(environment or {})},
            )
        except subprocess.TimeoutExpired:
            raise Broken(f"{' '.join(command)}: not done after {_PATIENCE} s") from None
        finally:
            _reap_all()
        if done.returncode or (done.stderr and not talks):
            raise Broken(f"{' '.join(command)}: status {done.returncode}; {done.stderr.strip()}")
        times: Times = {}
        for line in done.stdout.splitlines():
            name, value = line.split()
            times.setdefault(name, []).append(float(value))
        if not times:
            raise Broken(f"{' '.join(command)}: said no times")
        return times


def _reap_all() -> None:
    """Wait until we have no child left; kill those that do not end by themselves."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG | WALL)
        except ChildProcessError:
            return
        if pid == 0:
            if time.monotonic() > deadline:
                _kill_children()
            time.sleep(0.001)


def _kill_children() -> None:
    own = os.getpid()
    for child in Path(f"/proc/{own}/task/{own}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)

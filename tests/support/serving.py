# SPDX-License-Identifier: MIT
"""A running `mlockwipe serve`, and programs that are handed over to it."""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.running import MLOCKWIPE, TIMEOUT, Marked, marked


class Service:
    """`socket`: where it listens. `processes`: itself, and the pairs that it has made."""

    def __init__(self, directory: Path, prefix: Sequence[str], processes: Marked) -> None:
        self.socket = str(directory / "socket")
        self._reports = directory / "reports"
        self._log = directory / "log"
        self.processes = processes
        self._reports.mkdir()
        self._reports.chmod(0o777)
        directory.chmod(0o777)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, MLOCKWIPE, "serve", "-v", "--socket", self.socket, "--reports", str(self._reports)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=processes.environment,
                cwd="/",
            )
        deadline = time.monotonic() + TIMEOUT
        while not Path(self.socket).exists():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def exec(self) -> tuple[str, ...]:
        """What is put before a command."""
        return (MLOCKWIPE, "exec", "--socket", self.socket, "--")

    @property
    def log(self) -> list[str]:
        return [line.removeprefix("mlockwipe: ") for line in self._log.read_text().splitlines()]

    def await_idle(self) -> None:
        """Until all that was handed over has ended."""
        deadline = time.monotonic() + TIMEOUT
        while self.processes.named("mlockwipe-super") or self.processes.named("mlockwipe-guard"):
            assert time.monotonic() < deadline, self.processes.processes()
            time.sleep(0.01)

    def reports(self) -> list[dict[str, Any]]:
        """Of all that was handed over, once that has ended."""
        self.await_idle()
        return [json.loads(path.read_text()) for path in sorted(self._reports.iterdir())]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)


@contextmanager
def serving(*prefix: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="mlockwipe-serve-") as directory, marked() as processes:
        service = Service(Path(directory), prefix, processes)
        try:
            yield service
        finally:
            service.process.kill()
            service.process.wait()

# SPDX-License-Identifier: MIT
"""The two kinds of operations: a command that takes a while, and a service that holds its secret all the time."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from mlockwipe_lab.key_managers.processes import TIMEOUT, Hangs, wait_until

_SOON = 0.02  # seconds between two looks at a service
_SAID = 4000  # bytes of what a program printed that are kept in sight


class Command:
    """A command run once an operation, which holds the secret somewhere on its way, itself or in its agent."""

    def __init__(self, argv: Sequence[str], holders: Sequence[str], env: Mapping[str, str]) -> None:
        self.holders = holders
        self._argv, self._env = argv, env
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (kept as long as this)
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        self.start()

    def finish(self) -> None:
        self.wait()

    def start(self, stdin: int = subprocess.DEVNULL) -> None:
        self.process = subprocess.Popen(
            self._argv, stdin=stdin, stdout=self._output, stderr=subprocess.STDOUT, env=self._env, bufsize=0
        )

    def feed(self, data: bytes) -> None:
        """More of its standard input. Raises Hangs when it has gone."""
        assert self.process is not None and self.process.stdin is not None
        try:
            view = memoryview(data)
            while view:
                view = view[self.process.stdin.write(view) or 0 :]
        except BrokenPipeError:
            self.wait()
            raise Hangs(f"{self._argv} reads no more: {self.said()}") from None

    def end_of_input(self) -> None:
        assert self.process is not None
        if self.process.stdin is not None:
            self.process.stdin.close()

    def wait(self) -> None:
        """Raises Hangs when it fails."""
        assert self.process is not None
        self.end_of_input()
        if self.process.wait(TIMEOUT):
            raise Hangs(f"{' '.join(self._argv)} ended with {self.process.returncode}: {self.said()}")

    def end(self) -> None:
        """SIGTERM, and wait."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(TIMEOUT)

    def said(self) -> str:
        """What it has printed so far."""
        with suppress(OSError):
            fd = self._output.fileno()
            return os.pread(fd, _SAID, max(0, os.fstat(fd).st_size - _SAID)).decode(errors="replace").strip()
        return ""


class Service(Command):
    """A program that has the secret from some moment on until it ends. An operation is nothing to it."""

    def begin(self) -> None:
        """Nothing: it holds it already, or will soon."""
        time.sleep(_SOON)

    def finish(self) -> None:
        """Nothing."""

    def await_said(self, text: str) -> None:
        """Wait until it has printed `text`. Raises Hangs."""
        assert self.process is not None
        process = self.process
        wait_until(lambda: text in self.said() or process.poll() is not None, f"no '{text}' from {self._argv}")
        if text not in self.said():
            raise Hangs(f"{' '.join(self._argv)} ended with {process.returncode}: {self.said()}")

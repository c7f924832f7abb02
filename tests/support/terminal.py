# SPDX-License-Identifier: MIT
"""An interactive bash in a pseudo-terminal, typed at and read from."""

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.running import TIMEOUT, Marked, marked

CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"
_PROMPT = "=prompt="


class Terminal:
    """What a user at a terminal does and sees."""

    def __init__(self, fd: int, processes: Marked) -> None:
        self._fd = fd
        self._text = ""
        self.processes = processes

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def run(self, line: str) -> str:
        """Give bash a line and return what came before its next prompt."""
        self.type(line + "\n")
        return self.until(_PROMPT)

    def until(self, pattern: str) -> str:
        """Read until a regular expression is seen: what came before it."""
        deadline = time.monotonic() + TIMEOUT
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while (found := re.search(pattern, self._text)) is None:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise AssertionError(f"{pattern!r} was not seen in {self._text!r}")
            try:
                self._text += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"bash ended before {pattern!r}: {self._text!r}") from None
        before = self._text[: found.start()]
        self._text = self._text[found.end() :]
        return before.replace("\r", "")


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal with a bash that echoes nothing and has job control."""
    with marked() as processes:
        environment = {**processes.environment, "PS1": _PROMPT, "TERM": "dumb"}
        pid, fd = pty.fork()
        if pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        try:
            user = Terminal(fd, processes)
            user.until(_PROMPT)
            # noflsh: at a Ctrl-C the kernel signals and then throws output away, even what a handler has written
            user.run("stty -echo noflsh")
            yield user
        finally:
            os.kill(pid, signal.SIGKILL)
            os.close(fd)
            os.waitpid(pid, 0)

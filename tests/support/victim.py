# SPDX-License-Identifier: MIT
"""One trial of the death of the supervisor: the program, the moment, and what its witness saw."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlockwipe.contract.witness import witness
from tests.support.c_programs import compiled
from tests.support.running import MLOCKWIPE, TIMEOUT, Marked


@dataclass(frozen=True)
class Situation:
    """What the program does when the supervisor is killed."""

    doing: str
    threads: int = 1
    endless: bool = True  # it does not end by itself

    def __str__(self) -> str:
        return self.doing if self.threads == 1 else f"{self.doing}-{self.threads}-threads"


SITUATIONS = (
    Situation("sleeps"),
    Situation("sleeps", 8),
    Situation("spins"),
    Situation("spins", 4),
    Situation("spins", 8),
    Situation("unmaps"),
    Situation("unmaps", 4),
    Situation("forks"),
    Situation("forks", 4),
    Situation("clones"),
    Situation("clones", 4),
    Situation("unmaps-the-secret"),
    Situation("unmaps-the-secret", 4),
    Situation("exits", endless=False),
    Situation("exits", 4, endless=False),
    Situation("execs"),
    Situation("execs", 4),
)


@dataclass
class Trial:
    """What was seen in a trial."""

    status: int
    pages: int
    dirty: int
    hung: bool
    left_over: dict[int, str]
    err: str


def kill_supervisor(
    situation: Situation,
    number: int = 0,
    *,
    delay: float = 0.0,
    prefix: Sequence[str] = (MLOCKWIPE,),
) -> Trial:
    """Kill the supervisor of a program that is in a situation. `number` varies the protection of its pages."""
    return _trial(situation, [*prefix, "run", "--"], number, "mlockwipe-super", delay)


def kill_victim(situation: Situation, number: int = 0) -> Trial:
    """The negative control: kill the program itself, bare."""
    return _trial(situation, [], number, None, 0.0)


def _trial(situation: Situation, prefix: list[str], number: int, target: str | None, delay: float) -> Trial:
    marked = Marked()
    ready, told = os.pipe()
    try:
        with witness() as seen:
            fds = (seen.write_end, told)
            victim = [compiled("victim"), situation.doing, str(situation.threads)]
            process = subprocess.Popen(
                [*prefix, *victim, *map(str, fds), str(number)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=marked.environment,
                pass_fds=fds,
            )
            os.close(told)
            # Looked for in time: the search takes longer than many a situation.
            supervisors = [process.pid] if target is None else _await_named(marked, target, ready)
            _await_readable(ready)
            _spin(delay)
            for pid in supervisors:
                _kill(pid)
            hung = False
            try:
                _, err = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                hung = True
                marked.kill()
                _, err = process.communicate()
            seen.look()
            left_over = marked.await_end(timeout=30)
            pages = seen.pages
    finally:
        marked.kill()
        os.close(ready)
    return Trial(process.returncode, pages.total, pages.dirty, hung, left_over, err.decode(errors="replace"))


def _await_named(marked: Marked, name: str, ready: int) -> list[int]:
    """The processes of that name, as soon as there are any; at the latest when the program is ready."""
    while not (found := marked.named(name)) and not select.select([ready], [], [], 0)[0]:
        pass
    return found or marked.named(name)


def _await_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(TIMEOUT * 1000), "the program did not come so far"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        assert not Path(f"/proc/{pid}").exists()


def _spin(seconds: float) -> None:
    """Let a moment pass that is shorter than any sleep."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

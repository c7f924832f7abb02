# SPDX-License-Identifier: MIT
"""Run one case under one carrier and judge it."""

import json
import os
import secrets
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from mlockwipe.contract.candidate import Candidate
from mlockwipe.contract.case import Case
from mlockwipe.contract.result import DAMAGED, FAILED, NEEDS_RAM_SCAN, Result
from mlockwipe.contract.start import Order, Running, Spawned
from mlockwipe.contract.witness import witness

TIMEOUT = 20.0  # seconds

_MESSAGE = 65536
_MARK = "MLOCKWIPE_CASE"  # in the environment of a case's processes, with a value that no other run has


class Eyes(Protocol):
    """What sees the pages of a case: the witness, or a search of all memory."""

    write_end: int  # the descriptor that the program shows its pages to, or -1
    environment: Mapping[str, str]  # what the program's gets on top

    def look(self) -> None:
        """Judge what the pages hold now. The program waits, or has ended."""

    def look_at_last(self) -> None:
        """The same, when every process of the case is gone."""

    def verdict(self, case: Case, shown: int) -> tuple[str, str | None]:
        """The verdict on the pages and a reason. `shown`: how many the program says that it has shown."""

    @property
    def counts(self) -> tuple[int, int]:
        """How many pages were judged, and how many of them held the secret."""


@dataclass
class Testimony:
    """What a program told, and how it ended."""

    shown: int = 0
    looked_at: int = -1  # so many had been shown at the last look
    checked: int = 0
    damaged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    cannot: str | None = None
    status: int | None = None
    complaint: str = ""
    hangs: str | None = None


def judge(case: Case, carrier: Candidate, *, timeout: float = TIMEOUT) -> Result:
    """The verdict of the witness on `case` under `carrier`."""
    if case.needs_ram_scan is not None:
        return Result(case.name, case.row, NEEDS_RAM_SCAN, case.expected, 0, 0, case.needs_ram_scan)
    with witness() as seen:
        return judge_by(seen, case, carrier, timeout=timeout)


def judge_by(
    seen: Eyes,
    case: Case,
    carrier: Candidate,
    *,
    timeout: float = TIMEOUT,
    start: Callable[[Candidate, Order], Running] = Spawned,
) -> Result:
    """The verdict on `case` under `carrier` by what `seen` sees."""
    said = _run(case, lambda order: start(carrier, order), seen, time.monotonic() + timeout)
    seen.look_at_last()
    verdict, reason = _verdict(case, said, seen)
    limit = carrier.limit(case.name) if verdict not in (case.expected, NEEDS_RAM_SCAN) else None
    return Result(case.name, case.row, verdict, case.expected, *seen.counts, reason, limit)


# The run


def _run(case: Case, start: Callable[[Order], Running], seen: Eyes, deadline: float) -> Testimony:
    said = Testimony()
    mark = secrets.token_hex(8)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, _place() as place, tempfile.TemporaryFile() as output:
        with theirs:
            environment = {**os.environ, **seen.environment, _MARK: mark}
            program = start(Order(case, seen.write_end, theirs.fileno(), output.fileno(), place, environment))
        try:
            _attend(case, program, ours, seen, said, deadline)
        finally:
            if said.hangs is not None or not _ended_as(case.status, said.status):
                _end(program, mark)
            program.close()
        said.complaint = _last_line(output)
    return said


def _end(program: Running, mark: str) -> None:
    """Kill what is left of a case that went wrong: its group, and all who inherited the mark but left the group."""
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()
    entry = f"{_MARK}={mark}".encode()
    for _ in range(100):  # one that is being killed may still make another
        marked = [process for process in Path("/proc").iterdir() if process.name.isdecimal() and _has(process, entry)]
        if not marked:
            return
        for process in marked:
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.01)


def _has(process: Path, entry: bytes) -> bool:
    try:
        return entry in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False


@contextmanager
def _place() -> Iterator[str]:
    """A directory for a case's files: on a disk, for direct I/O, where /tmp may be memory."""
    disk = "/var/tmp"
    with tempfile.TemporaryDirectory(prefix="mlockwipe-", dir=disk if os.access(disk, os.W_OK) else None) as place:
        yield place


def _attend(
    case: Case,
    program: Running,
    channel: socket.socket,
    seen: Eyes,
    said: Testimony,
    deadline: float,
) -> None:
    """Hear the program until it and all it started are gone, and look at its pages the moment it is."""
    end = program.fileno()
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(channel, select.POLLIN)
    running, open_ = True, True
    while running or open_:
        ready = {fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
        if not ready:
            said.hangs = "it did not end" if running else "a process it started did not end"
            return
        if channel.fileno() in ready:
            if message := channel.recv(_MESSAGE):
                _hear(json.loads(message), channel, seen, said)
            else:
                open_ = False
                poll.unregister(channel)
        elif end in ready:
            said.status = program.wait()
            running = False
            poll.unregister(end)
            if not case.outlives:
                _look_at_news(seen, said)
    _look_at_news(seen, said)


def _look_at_news(seen: Eyes, said: Testimony) -> None:
    """Look, unless what was shown so far has been seen."""
    if said.shown != said.looked_at:
        _look(seen, said)


def _look(seen: Eyes, said: Testimony) -> None:
    seen.look()
    said.looked_at = said.shown


def _hear(message: dict[str, int | str], channel: socket.socket, seen: Eyes, said: Testimony) -> None:
    for kind, value in message.items():
        if kind == "look":
            _look(seen, said)
            channel.send(b"\n")
        elif kind == "shown":
            said.shown += int(value)
        elif kind == "checked":
            said.checked += int(value)
        elif kind == "cannot":
            said.cannot = str(value)
        elif kind == "damaged":
            said.damaged.append(str(value))
        else:
            said.failed.append(str(value))


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


# The verdict


def _verdict(case: Case, said: Testimony, seen: Eyes) -> tuple[str, str | None]:
    """What is wrong with the run comes first, then what the program saw, then what the pages held."""
    if said.hangs is not None:
        return FAILED, said.hangs
    if said.cannot is not None:
        return NEEDS_RAM_SCAN, said.cannot
    if said.damaged:
        return DAMAGED, "; ".join(said.damaged)
    if said.failed:
        return FAILED, "; ".join(said.failed)
    if not _ended_as(case.status, said.status):
        return FAILED, f"it ended with {said.status} instead of {case.status}: {said.complaint}"
    if case.needs_ram_scan is None and not (said.shown if case.shows else said.checked):
        return FAILED, "it ended before it had shown anything"
    return seen.verdict(case, said.shown)


def _ended_as(expected: int, status: int | None) -> bool:
    """A command that runs another may end as a shell says that it ended: with 128 + the signal."""
    return status == expected or (expected < 0 and status == 128 - expected)

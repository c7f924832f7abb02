# SPDX-License-Identifier: MIT
"""Run one case under one carrier and judge it."""

import json
import os
import secrets
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import IO

import mlockwipe
from mlockwipe.contract.carrier import Carrier
from mlockwipe.contract.case import KEPT, WIPED, Case
from mlockwipe.contract.result import DAMAGED, FAILED, LEAKED, NEEDS_RAM_SCAN, Result
from mlockwipe.contract.witness import Pages, Witness, witness

TIMEOUT = 20.0  # seconds

_ROOT = str(Path(mlockwipe.__file__).parents[1])
_PROGRAM = f"import sys; sys.path.insert(0, {_ROOT!r}); from mlockwipe.contract.program import main; main()"
_MESSAGE = 65536
_MARK = "MLOCKWIPE_CASE"  # in the environment of a case's processes, with a value that no other run has


def command(case: Case, witness: int = -1, channel: int = -1) -> list[str]:
    """The argv of a case's program. `mlockwipe.contract.program` says what the descriptors are."""
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, case.module, case.name, str(witness), str(channel)]


@dataclass
class Testimony:
    """What a program told, and how it ended."""

    shown: int = 0
    checked: int = 0
    damaged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    cannot: str | None = None
    status: int | None = None
    complaint: str = ""
    hangs: str | None = None


def judge(case: Case, carrier: Carrier, *, timeout: float = TIMEOUT) -> Result:
    """The verdict on `case` under `carrier`."""
    if case.needs_ram_scan is not None:
        return Result(case.name, case.row, NEEDS_RAM_SCAN, case.expected, 0, 0, case.needs_ram_scan)
    with witness() as seen:
        said = _run(case, carrier, seen, time.monotonic() + timeout)
        verdict, reason = _verdict(case, said, seen.pages)
        limit = carrier.limits.get(case.name) if verdict not in (case.expected, NEEDS_RAM_SCAN) else None
        return Result(case.name, case.row, verdict, case.expected, seen.pages.total, seen.pages.dirty, reason, limit)


# The run


def _run(case: Case, carrier: Carrier, seen: Witness, deadline: float) -> Testimony:
    said = Testimony()
    mark = secrets.token_hex(8)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, _place() as place, tempfile.TemporaryFile() as output:
        with theirs:
            argv = carrier.wrap(command(case, seen.write_end, theirs.fileno()))
            program = Popen(
                argv,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                cwd=place,
                env={**os.environ, _MARK: mark},
                pass_fds=(seen.write_end, theirs.fileno()),
                start_new_session=True,
            )
        try:
            _attend(case, program, ours, seen, said, deadline)
        finally:
            if said.hangs is not None or not _ended_as(case.status, said.status):
                _end(program, mark)
        said.complaint = _last_line(output)
    return said


def _end(program: "Popen[bytes]", mark: str) -> None:
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
    program: "Popen[bytes]",
    channel: socket.socket,
    seen: Witness,
    said: Testimony,
    deadline: float,
) -> None:
    """Hear the program until it and all it started are gone, and look at its pages the moment it is."""
    pidfd = os.pidfd_open(program.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(channel, select.POLLIN)
    running, open_ = True, True
    try:
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
            elif pidfd in ready:
                said.status = program.wait()
                running = False
                poll.unregister(pidfd)
                if not case.outlives:
                    seen.look()
        seen.look()
    finally:
        os.close(pidfd)


def _hear(message: dict[str, int | str], channel: socket.socket, seen: Witness, said: Testimony) -> None:
    for kind, value in message.items():
        if kind == "look":
            seen.look()
            channel.send(b".")
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


def _verdict(case: Case, said: Testimony, pages: Pages) -> tuple[str, str | None]:
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
    if not (said.shown if case.shows else said.checked):
        return FAILED, "it ended before it had shown anything"
    if pages.total != said.shown:
        return FAILED, f"{said.shown} pages were shown and {pages.total} arrived"
    return _wiped(pages) if case.expected == WIPED else _kept(pages)


def _ended_as(expected: int, status: int | None) -> bool:
    """A command that runs another may end as a shell says that it ended: with 128 + the signal."""
    return status == expected or (expected < 0 and status == 128 - expected)


def _wiped(pages: Pages) -> tuple[str, str | None]:
    if pages.dirty:
        return LEAKED, None
    if pages.other:
        return FAILED, f"{pages.other} pages hold neither the secret nor zeros"
    return WIPED, None


def _kept(pages: Pages) -> tuple[str, str | None]:
    if pages.zero or pages.part:
        return DAMAGED, f"{pages.zero + pages.part} pages were wiped that must stay"
    if pages.other:
        return FAILED, f"{pages.other} pages hold neither what must stay nor zeros"
    return KEPT, None

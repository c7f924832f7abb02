# SPDX-License-Identifier: MIT
"""Start the program of a case."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Protocol

import mlockwipe
from mlockwipe.contract.candidate import Candidate
from mlockwipe.contract.case import Case

_ROOT = str(Path(mlockwipe.__file__).parents[1])
_PROGRAM = f"import sys; sys.path.insert(0, {_ROOT!r}); from mlockwipe.contract.run_case import main; main()"


@dataclass(frozen=True)
class Order:
    """What is to be started. `witness` and `channel`: the descriptors of `mlockwipe.contract.program`, the first
    may be -1. `output`: the descriptor for stdout and stderr. `place`: its working directory. `environment`: all
    of it."""

    case: Case
    witness: int
    channel: int
    output: int
    place: str
    environment: Mapping[str, str]


class Running(Protocol):
    """A program that was started; it leads a session of its own."""

    pid: int

    def fileno(self) -> int:
        """A descriptor that is readable when the program has ended."""

    def wait(self) -> int:
        """How it ended: the exit status, or the signal as a negative number. May be asked again."""

    def close(self) -> None: ...


def command(case: Case, witness: int = -1, channel: int = -1) -> list[str]:
    """The argv of a case's program. `mlockwipe.contract.program` says what the descriptors are."""
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, case.module, case.name, str(witness), str(channel)]


class Spawned:
    """An interpreter of its own for the program, run under a carrier."""

    def __init__(self, carrier: Candidate, order: Order) -> None:
        self._process = Popen(
            carrier.command(command(order.case, order.witness, order.channel)),
            stdin=DEVNULL,
            stdout=order.output,
            stderr=order.output,
            cwd=order.place,
            env=order.environment,
            pass_fds=[fd for fd in (order.witness, order.channel) if fd >= 0],
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        return self._pidfd

    def wait(self) -> int:
        return self._process.wait()

    def close(self) -> None:
        os.close(self._pidfd)

# SPDX-License-Identifier: MIT
"""Real key managers, killed while they hold a secret: how often its own bytes stand in memory before and after.

Each has two halves. `prepare` runs outside of the machine and makes the key material with the program's own
tools: only it knows the secret, and what it leaves in its directory for the machine is wrapped with a
passphrase wherever the program allows it. `operate` runs inside, and drives the program to and through the
moments at which it holds the secret. `hold` finds such a moment by looking, and kills there.

    python -m mlockwipe_lab.key_managers NAME [-- PREFIX ...]

runs one on this machine, where only the memory of living processes can be searched.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Needle:
    """Bytes that stand in memory exactly where the secret stands: 16 or more of them, and random."""

    label: str
    data: bytes


PASSPHRASE = "passphrase"  # a needle with this label makes no moment: it may lie in a file, too

Wrap = Callable[[Sequence[str]], list[str]]  # the command that starts a program under what is to be shown


class Operation(Protocol):
    """A key manager that has been started.

    `holders`: names (comm) of the processes that may hold the secret; those are stopped, looked at and killed.
    """

    holders: Sequence[str]

    def begin(self) -> None:
        """Begin one operation with the secret and return while it is under way."""

    def finish(self) -> None:
        """Let it end by itself."""


@dataclass(frozen=True, slots=True)
class KeyManager:
    """`name`: as the user names it. `what`: one line. `needs`: the programs and libraries that it can't do
    without, each with the Debian package that brings it.

    `prepare(directory)`: makes the key material, outside. `operate(directory, wrap)`: inside, with a copy of
    that directory which may be written to; whatever still runs when the block ends is killed by the caller.
    """

    name: str
    what: str
    needs: Mapping[str, str]
    prepare: Callable[[Path], list[Needle]]
    operate: Callable[[Path, Wrap], AbstractContextManager[Operation]]

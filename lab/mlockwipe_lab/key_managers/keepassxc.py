# SPDX-License-Identifier: MIT
"""keepassxc-cli with an open database: Botan locks a pool of 512 KiB for keys; the entries are Qt's strings."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, passphrase, run
from mlockwipe_lab.key_managers.operations import Service

_PACKAGE = "keepassxc"
_CLI = "keepassxc-cli"


def _environment(directory: Path) -> dict[str, str]:
    return environment(HOME=str(directory), QT_QPA_PLATFORM="offscreen")


def _prepare(directory: Path) -> list[Needle]:
    cli, database, env = need(_CLI, _PACKAGE), str(directory / "database"), _environment(directory)
    word, entry = passphrase(directory).encode() + b"\n", secrets.token_urlsafe(24)
    run([cli, "db-create", "-p", "-t", "100", database], input=word * 2, env=env)
    run([cli, "add", "-q", "-p", database, "entry"], input=word + f"{entry}\n".encode() * 2, env=env)
    return [Needle("entry, UTF-16", entry.encode("utf-16-le")), Needle("entry, UTF-8", entry.encode())]


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    argv = wrap([need(_CLI, _PACKAGE), "open", "-q", str(directory / "database")])
    service = Service(argv, (_CLI[:15],), _environment(directory))
    service.start(stdin=subprocess.PIPE)
    service.feed((directory / "passphrase").read_bytes() + b"\n")
    service.await_said("database>")
    service.feed(b"ls\n")
    service.await_said("entry")
    yield service


KEEPASSXC = KeyManager(
    "keepassxc-cli",
    "keepassxc-cli killed with an open database: the password of an entry",
    {_CLI: _PACKAGE},
    _prepare,
    _operate,
)

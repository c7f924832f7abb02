# SPDX-License-Identifier: MIT
"""chronyd, which locks all of its memory with `lock_all`: the key that authenticates its time."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need
from mlockwipe_lab.key_managers.operations import Service

_PACKAGE = "chrony"
_PORT = 11123


def _prepare(directory: Path) -> list[Needle]:
    need("chronyd", _PACKAGE)
    key = secrets.token_bytes(32)
    # chrony takes keys from a plain file only; as hexadecimal digits they don't stand there as in memory
    (directory / "keys").write_text(f"1 SHA256 HEX:{key.hex()}\n")
    (directory / "keys").chmod(0o600)
    return [Needle("key", key)]


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    configuration = directory / "configuration"
    configuration.write_text(
        f"server 127.0.0.1 port {_PORT} key 1 minpoll -2 maxpoll -2\nport {_PORT}\nbindaddress 127.0.0.1\n"
        f"allow 127.0.0.1\nlocal stratum 5\ncmdport 0\nbindcmdaddress /\nlock_all\nuser root\n"
        f"keyfile {directory}/keys\npidfile {directory}/pid\ndriftfile {directory}/drift\n"
    )
    argv = [need("chronyd", _PACKAGE), "-d", "-x", "-f", str(configuration)]
    chronyd = Service(wrap(argv), ("chronyd",), environment())
    chronyd.start()
    chronyd.await_said("Running with root privileges")
    yield chronyd


CHRONY = KeyManager(
    "chronyd",
    "chronyd with lock_all killed: the key of its time server",
    {"chronyd": _PACKAGE},
    _prepare,
    _operate,
)

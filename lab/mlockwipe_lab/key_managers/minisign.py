# SPDX-License-Identifier: MIT
"""minisign: the secret key in libsodium's guarded memory while it reads the file that it signs."""

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, passphrase, run
from mlockwipe_lab.key_managers.operations import Command
from mlockwipe_lab.key_managers.processes import wait_until

_PACKAGE = "minisign"
_SEED_AT, _SEED_SIZE = 62, 32  # in the decoded second line of a secret key's file, of minisign(1)
_ROOM = 40 << 20  # bytes for minisign when it protects the key: with 1 GiB, scrypt takes 1 GiB in the machine, too


def _prepare(directory: Path) -> list[Needle]:
    minisign, file = need("minisign", _PACKAGE), directory / "key"
    run([minisign, "-G", "-W", "-f", "-p", str(directory / "key.pub"), "-s", str(file)])
    seed = base64.b64decode(file.read_text().splitlines()[1])[_SEED_AT : _SEED_AT + _SEED_SIZE]
    word = passphrase(directory).encode()
    run([need("prlimit", "util-linux"), f"--as={_ROOM}", minisign, "-C", "-s", str(file)], input=(word + b"\n") * 2)
    assert base64.b64decode(file.read_text().splitlines()[1])[2:4] == b"Sc", "it is not protected"
    return [Needle("seed", seed)]


class _Sign(Command):
    """Signs what comes through a pipe with a name, and nothing comes until `finish`."""

    def __init__(self, directory: Path, wrap: Wrap) -> None:
        self._word = (directory / "passphrase").read_bytes() + b"\n"
        self._message = directory / "message"
        os.mkfifo(self._message)
        argv = [need("minisign", _PACKAGE), "-S", "-s", str(directory / "key"), "-x", str(directory / "signature")]
        super().__init__(wrap([*argv, "-m", str(self._message)]), ("minisign",), environment())
        self._writing = -1

    def begin(self) -> None:
        self.start(stdin=subprocess.PIPE)
        self.feed(self._word)
        wait_until(self._is_read, "minisign does not come to read its message")

    def _is_read(self) -> bool:
        try:
            self._writing = os.open(self._message, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: nobody has opened it for reading yet
            return False
        return True

    def finish(self) -> None:
        os.write(self._writing, b"message")
        os.close(self._writing)
        self.wait()


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    yield _Sign(directory, wrap)


MINISIGN = KeyManager(
    "minisign",
    "minisign killed while it waits for the file to sign: the seed of its Ed25519 key",
    {"minisign": _PACKAGE, "prlimit": "util-linux"},
    _prepare,
    _operate,
)

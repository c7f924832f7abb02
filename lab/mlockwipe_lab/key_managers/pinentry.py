# SPDX-License-Identifier: MIT
"""pinentry: a passphrase that somebody has typed and not sent off yet, in its secure memory."""

import fcntl
import os
import pty
import secrets
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need
from mlockwipe_lab.key_managers.operations import Service
from mlockwipe_lab.key_managers.processes import wait_until

_PACKAGE = "pinentry-curses"


def _prepare(directory: Path) -> list[Needle]:
    typed = secrets.token_urlsafe(24).encode()
    (directory / "keys").write_text(typed.hex(" "))  # not as it will stand in memory
    return [Needle("typed", typed)]


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    try:
        argv = [need("pinentry-curses", _PACKAGE), "--ttyname", os.ttyname(theirs), "--ttytype", "xterm"]
        pinentry = Service(wrap(argv), (_PACKAGE,), environment(TERM="xterm"))
        pinentry.start(stdin=subprocess.PIPE)
        pinentry.feed(b"SETPROMPT Passphrase:\nGETPIN\n")
        _await_shown(ours, b"Passphrase:")
        for key in (directory / "keys").read_text().split():
            os.write(ours, bytes([int(key, 16)]))
            _await_shown(ours, b"*")
        yield pinentry
    finally:
        os.close(ours)
        os.close(theirs)


def _await_shown(terminal: int, what: bytes) -> None:
    shown = bytearray()

    def is_shown() -> bool:
        shown.extend(os.read(terminal, 4096))
        return what in shown

    wait_until(is_shown, f"pinentry shows no {what!r}")


PINENTRY = KeyManager(
    "pinentry",
    "pinentry-curses killed when a passphrase has been typed",
    {_PACKAGE: _PACKAGE},
    _prepare,
    _operate,
)

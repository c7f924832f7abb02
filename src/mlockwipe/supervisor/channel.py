# SPDX-License-Identifier: MIT
"""Messages between front, guardian and supervisor, one a datagram of a sequenced-packet socket.

To the front: `started PROGRAM SUPERVISOR`, `say TEXT`, `failed STATUS TEXT`, and last `exited CODE`
or `killed SIGNAL`, after `ended` when no descendant is left either. From the front: `apart`, once it has left the
program's process group. To the guardian: `program PID`, `keeper PID`,
`gone PID`. Descriptors travel beside them.
"""

import os

from mlockwipe.linux import unix_socket
from mlockwipe.suppress import suppress

_LARGEST = 1 << 16


class Channel:
    """One end of a conversation."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        first, second = unix_socket.socketpair()
        return cls(first), cls(second)

    def fileno(self) -> int:
        return self._fd

    def send(self, word: str, *values: object, fds: tuple[int, ...] = ()) -> bool:
        """False when the other end is gone."""
        message = " ".join((word, *map(str, values))).encode(errors="surrogateescape")[:_LARGEST]
        try:
            unix_socket.send(self._fd, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def offer(self, word: str, text: str) -> None:
        """Send something that may be lost: when there is no room for it, or nobody."""
        message = f"{word} {text}".encode(errors="surrogateescape")[:_LARGEST]
        with suppress(OSError):
            unix_socket.send(self._fd, message, waits=False)

    def receive(self) -> tuple[str, str, list[int]] | None:
        """The next message: its word, the rest, and descriptors. None when the other end is gone."""
        try:
            message, fds = unix_socket.receive(self._fd, _LARGEST)
        except ConnectionResetError:
            return None
        if not message:
            return None
        word, _, rest = message.decode(errors="surrogateescape").partition(" ")
        return word, rest, fds

    def close(self) -> None:
        os.close(self._fd)

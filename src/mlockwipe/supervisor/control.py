# SPDX-License-Identifier: MIT
"""Messages between front, guardian and supervisor, one a datagram of a sequenced-packet socket.

To the front: `started PROGRAM SUPERVISOR`, `stopped SIGNAL`, `say TEXT`, `failed STATUS TEXT`, and last `exited CODE`
or `killed SIGNAL`, after `ended` when no descendant is left either. To the guardian: `program PID`, `keeper PID`,
`gone PID`. Descriptors travel beside them.
"""

import os
import socket

_LARGEST = 1 << 16


class Channel:
    """One end of a conversation."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, word: str, *values: object, fds: tuple[int, ...] = ()) -> bool:
        """False when the other end is gone."""
        message = " ".join((word, *map(str, values))).encode(errors="surrogateescape")[:_LARGEST]
        try:
            socket.send_fds(self._socket, [message], fds)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> tuple[str, str, list[int]] | None:
        """The next message: its word, the rest, and descriptors. None when the other end is gone."""
        try:
            message, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, 8)
        except ConnectionResetError:
            return None
        if not message:
            return None
        word, _, rest = message.decode(errors="surrogateescape").partition(" ")
        for fd in fds:
            os.set_inheritable(fd, False)
        return word, rest, fds

    def close(self) -> None:
        self._socket.close()

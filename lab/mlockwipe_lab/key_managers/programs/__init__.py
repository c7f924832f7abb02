# SPDX-License-Identifier: MIT
"""Small services that keep a key as the manual of a library tells them to, and answer with what they make of it."""

import socket
from collections.abc import Callable

from mlockwipe.linux.prctl import set_name

NAME = "km-service"  # their comm, whatever the interpreter is called
SALT = b"mlockwipe"
ROUNDS = 1000
KEY_SIZE = 32


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Answer messages on a loopback socket, whose port is printed, until killed."""
    set_name(NAME.encode())
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"port {server.getsockname()[1]}.", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer(connection.recv(4096)))

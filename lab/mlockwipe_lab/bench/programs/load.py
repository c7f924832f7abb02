# SPDX-License-Identifier: MIT
"""What the clients of the services have in common: requests on connections that stay open, and the right answers."""

import socket
import subprocess
import time
from collections.abc import Callable, Sequence

PATIENCE = 10.0  # seconds
CONNECTIONS = 4


def exchange(connections: Sequence[socket.socket], request: bytes, answer: bytes) -> int:
    """Send a request on every connection: nanoseconds until each of them has answered something that ends as `answer`
    does. TimeoutError or ConnectionError when one does not."""
    start = time.perf_counter_ns()
    for connection in connections:
        connection.settimeout(PATIENCE)
        connection.sendall(request)
    for connection in connections:
        got = bytearray()
        while not got.endswith(answer):
            more = connection.recv(1 << 16)
            if not more:
                raise ConnectionError(f"the service hung up after {bytes(got[-100:])!r}")
            got += more
    return time.perf_counter_ns() - start


def report(name: str, server: Sequence[str], load: Callable[["subprocess.Popen[str]"], Sequence[int]]) -> None:
    """Start a server, load it, end it, and print the nanoseconds of each time under a name."""
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as started:
        try:
            times = load(started)
        finally:
            started.kill()
    for time_ in times:
        print(name, time_)

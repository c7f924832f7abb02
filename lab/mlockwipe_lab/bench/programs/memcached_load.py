# SPDX-License-Identifier: MIT
"""memcached_load.py COUNT: memcached, which locks all of its memory by -k, under COUNT batches of requests.

A batch is 32 sets and gets of 1 KiB on each of four connections to a socket in a directory of its own.
"""

import os
import pwd
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlockwipe_lab.bench.programs.cache_server import connected
from mlockwipe_lab.bench.programs.load import CONNECTIONS, exchange, report

_PIPELINED = 32
_VALUE = bytes(range(97, 113)) * 64


def batch(number: int) -> tuple[bytes, bytes]:
    """Requests of keys that no other batch has, so that memcached needs more memory as it goes; and the answer."""
    keys = [b"%d.%d" % (number, i) for i in range(_PIPELINED)]
    requests = (b"set %b 0 0 %d\r\n%b\r\nget %b\r\n" % (key, len(_VALUE), _VALUE, key) for key in keys)
    answers = (b"STORED\r\nVALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(_VALUE), _VALUE) for key in keys)
    return b"".join(requests), b"".join(answers)


def load(connections: Sequence[socket.socket], count: int) -> list[int]:
    """The nanoseconds of every batch but the first."""
    times = [exchange(connections, *batch(number)) for number in range(count + 1)]
    return times[1:]


def main() -> None:
    count = int(sys.argv[1])
    user = pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(prefix="memcached-") as directory:
        path = Path(directory, "socket")
        server = ["memcached", "-k", "-u", user, "-t", "2", "-s", str(path)]
        report("memcached", server, lambda _: load([connected(str(path)) for _ in range(CONNECTIONS)], count))


if __name__ == "__main__":
    main()

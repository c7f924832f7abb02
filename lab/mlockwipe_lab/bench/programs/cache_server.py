# SPDX-License-Identifier: MIT
"""memcached -k, which locks all of its memory, written to and read from 2,000 times, and ended."""

import os
import signal
import socket
import sys
import tempfile
import time

REQUESTS = 2000
VALUE = b"v" * 1000


def connected(path: str) -> socket.socket:
    for _ in range(1000):
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
            return client
        except OSError:
            client.close()
            time.sleep(0.01)
    sys.exit("memcached does not answer")


def ask(client: socket.socket, request: bytes, last: bytes) -> bytes:
    client.sendall(request)
    answer = b""
    while not answer.endswith(last):
        more = client.recv(1 << 16)
        if not more:
            sys.exit(f"memcached hung up after {answer!r}")
        answer += more
    return answer


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        path = f"{place}/socket"
        argv = ["memcached", "-k", "-u", "root", "-s", path, "-m", "16", "-t", "2"]
        server = os.posix_spawnp(argv[0], argv, os.environ)
        with connected(path) as client:
            for number in range(REQUESTS):
                key = b"key-%d" % (number % 500)
                ask(client, b"set %s 0 0 %d\r\n%s\r\n" % (key, len(VALUE), VALUE), b"STORED\r\n")
                if VALUE not in ask(client, b"get %s\r\n" % key, b"END\r\n"):
                    sys.exit("memcached has lost a value")
        os.kill(server, signal.SIGTERM)
        os.waitpid(server, 0)


if __name__ == "__main__":
    main()

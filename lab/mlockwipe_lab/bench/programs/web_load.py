# SPDX-License-Identifier: MIT
"""web_load.py COUNT: a web service that signs what is posted to it, under COUNT batches of requests.

It is Python's own server with a thread for each connection, and has its key in a LockedBuffer, which is mlocked here
as it is on a kernel without memfd_secret. A batch is a request on each of four connections, which stay open.
"""

import errno
import hmac
import socket
import subprocess
import sys
from typing import NoReturn

from mlockwipe import LockedBuffer
from mlockwipe.linux import mm
from mlockwipe_lab.bench.programs.load import CONNECTIONS, exchange, report
from mlockwipe_lab.bench.programs.web_service import Service

_KEY = bytes(range(32))
_BODY = bytes(range(256)) * 4
_REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


def serve() -> NoReturn:
    """Say the port, then serve until killed."""
    mm.memfd_secret = _no_memfd_secret
    service = Service(LockedBuffer(_KEY))
    print(service.server_port, flush=True)
    service.serve_forever()
    sys.exit(1)


def _no_memfd_secret(flags: int = 0) -> NoReturn:
    raise OSError(errno.ENOSYS, "not used: its memory is wiped by the kernel itself")


def load(port: int, count: int) -> list[int]:
    """The nanoseconds of every batch but the first."""
    signature = hmac.digest(_KEY, _BODY, "sha256")
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    times = [exchange(connections, _REQUEST, b"\r\n\r\n" + signature) for _ in range(count + 1)]
    for connection in connections:
        connection.close()
    return times[1:]


def main() -> None:
    if sys.argv[1] == "serve":
        serve()
    count = int(sys.argv[1])
    server = [sys.executable, __file__, "serve"]

    def loaded(service: "subprocess.Popen[str]") -> list[int]:
        assert service.stdout is not None
        return load(int(service.stdout.readline()), count)

    report("web", server, loaded)


if __name__ == "__main__":
    main()

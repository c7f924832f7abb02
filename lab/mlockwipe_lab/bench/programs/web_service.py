# SPDX-License-Identifier: MIT
"""A web service in Python that signs what it is sent with a key in locked memory, and 200 requests to it."""

import hmac
import http.client
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mlockwipe.locked import LockedBuffer

CLIENTS = 4
REQUESTS = 50
BODY = b"to be signed " * 80


class Service(ThreadingHTTPServer):
    daemon_threads = False  # or Python ends beside them, and ends them by pthread_exit, which needs libgcc_s

    def __init__(self, key: LockedBuffer) -> None:
        super().__init__(("127.0.0.1", 0), Signer)
        self.key = key


class Signer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    wbufsize = -1  # headers and body in one packet
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signature = hmac.digest(self.server.key, body, "sha256")
        self.send_response(200)
        self.send_header("Content-Length", str(len(signature)))
        self.end_headers()
        self.wfile.write(signature)

    def log_message(self, *_: object) -> None:
        pass


def client(port: int, wanted: bytes, wrong: list[bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(REQUESTS):
        connection.request("POST", "/", BODY)
        if (signature := connection.getresponse().read()) != wanted:
            wrong.append(signature)
    connection.close()


def main() -> None:
    secret = bytes(range(32))
    wanted = hmac.digest(secret, BODY, "sha256")
    wrong: list[bytes] = []
    with LockedBuffer(secret) as key, Service(key) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        clients = [threading.Thread(target=client, args=(server.server_port, wanted, wrong)) for _ in range(CLIENTS)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        server.shutdown()
        serving.join()
    if wrong:
        sys.exit(f"{len(wrong)} signatures are wrong")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""The services of `programs`: a page that Python locks, libsodium's guarded memory, OpenSSL's secure heap."""

import ctypes
import hashlib
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, passphrase, rsa_key
from mlockwipe_lab.key_managers.operations import Service
from mlockwipe_lab.key_managers.processes import TIMEOUT
from mlockwipe_lab.key_managers.programs import KEY_SIZE, NAME, ROUNDS, SALT, sodium_service

_LIBSODIUM = "libsodium.so.23"
_LIBCRYPTO = {"libcrypto.so.3": "libssl3"}


class _Asked(Service):
    """An operation is one request and its answer."""

    def __init__(self, argv: list[str]) -> None:
        super().__init__(argv, (NAME,), environment())
        self.start()
        self.await_said(".")
        self._port = int(re.findall(r"port (\d+)", self.said())[0])
        self._connection = socket.socket()

    def begin(self) -> None:
        self._connection = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        self._connection.sendall(b"message")

    def finish(self) -> None:
        with self._connection:
            assert self._connection.recv(4096)


def _service(program: str, *files: str) -> Callable[[Path, Wrap], AbstractContextManager[Operation]]:
    @contextmanager
    def operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
        paths = [str(directory / file) for file in files]
        yield _Asked(wrap([sys.executable, "-m", f"mlockwipe_lab.key_managers.programs.{program}", *paths]))

    return operate


def _prepare_python(directory: Path) -> list[Needle]:
    word = passphrase(directory).encode()
    return [Needle("key", hashlib.pbkdf2_hmac("sha256", word, SALT, ROUNDS, KEY_SIZE))]


def _prepare_sodium(directory: Path) -> list[Needle]:
    key = ctypes.create_string_buffer(KEY_SIZE)
    sodium_service.derive(ctypes.CDLL(_LIBSODIUM), passphrase(directory).encode(), key)
    return [Needle("key", key.raw)]


def _prepare_openssl(directory: Path) -> list[Needle]:
    return rsa_key(directory / "key.pem", passphrase(directory))


SERVICES = (
    KeyManager(
        "python-service",
        "a service in Python that locks the page of its HMAC key",
        _LIBCRYPTO,
        _prepare_python,
        _service("python_service", "passphrase"),
    ),
    KeyManager(
        "libsodium",
        "a service with an HMAC key in sodium_malloc, without access while it is not used",
        {_LIBSODIUM: "libsodium23"},
        _prepare_sodium,
        _service("sodium_service", "passphrase"),
    ),
    KeyManager(
        "openssl-secure-heap",
        "a service that signs with an RSA key of 4096 bits in OpenSSL's secure heap",
        {**_LIBCRYPTO, "openssl": "openssl"},
        _prepare_openssl,
        _service("openssl_service", "key.pem", "passphrase"),
    ),
)

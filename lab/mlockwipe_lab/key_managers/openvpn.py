# SPDX-License-Identifier: MIT
"""openvpn, which locks all of its memory with --mlock: a static key."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, run
from mlockwipe_lab.key_managers.operations import Service

_PACKAGE = "openvpn"
_PORT = 11194
_HALF = 64  # bytes of the file: the key of the cipher, and then that of the HMAC


def _prepare(directory: Path) -> list[Needle]:
    # openvpn writes and takes static keys as hexadecimal digits only: they don't stand in the file as in memory
    run([need("openvpn", _PACKAGE), "--genkey", "secret", str(directory / "key")])
    lines = re.findall(r"^[0-9a-f]{32}$", (directory / "key").read_text(), re.MULTILINE)
    key = bytes.fromhex("".join(lines))
    return [Needle("cipher key", key[:32]), Needle("HMAC key", key[_HALF : _HALF + 20])]  # HMAC-SHA1


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    argv = [need("openvpn", _PACKAGE), "--mlock", "--dev", "null", "--proto", "udp", "--local", "127.0.0.1"]
    argv += ["--lport", str(_PORT), "--remote", "127.0.0.1", str(_PORT + 1), "--cipher", "AES-256-CBC"]
    service = Service(wrap([*argv, "--secret", str(directory / "key")]), ("openvpn",), environment())
    service.start()
    service.await_said("UDPv4 link remote")  # the key is there, and nobody at the other end
    yield service


OPENVPN = KeyManager(
    "openvpn", "openvpn with --mlock killed: its static key", {"openvpn": _PACKAGE}, _prepare, _operate
)

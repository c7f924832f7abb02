# SPDX-License-Identifier: MIT
"""ssh-agent: it locks nothing. At rest keys are shielded, encrypted with a key derived from 16 KiB of noise; in
the middle of a signature they are not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, passphrase, rsa_key, run
from mlockwipe_lab.key_managers.operations import Command, Service
from mlockwipe_lab.key_managers.processes import wait_until

_PACKAGE = "openssh-client"


def _prepare(directory: Path) -> list[Needle]:
    word, key = passphrase(directory), directory / "key"
    needles = rsa_key(key, word)
    key.chmod(0o600)
    (directory / "key.pub").write_bytes(run([need("ssh-keygen", _PACKAGE), "-y", "-P", word, "-f", str(key)]))
    (directory / "message").write_text("message")
    ask = directory / "ask"
    ask.write_text('#!/bin/sh\ncat "${0%/*}/passphrase"\n')
    ask.chmod(0o755)
    return needles


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    address = directory / "socket"
    env = environment(SSH_AUTH_SOCK=str(address), SSH_ASKPASS=str(directory / "ask"), SSH_ASKPASS_REQUIRE="force")
    agent = Service(wrap([need("ssh-agent", _PACKAGE), "-D", "-a", str(address)]), ("ssh-agent",), env)
    agent.start()
    wait_until(address.exists, "ssh-agent makes no socket")
    os.chmod(directory / "key", 0o600)
    run([need("ssh-add", _PACKAGE), str(directory / "key")], env=env)
    sign = [need("ssh-keygen", _PACKAGE), "-Y", "sign", "-f", str(directory / "key.pub"), "-n", "file"]
    yield _Sign([*sign, str(directory / "message")], directory / "message.sig", env)


class _Sign(Command):
    def __init__(self, argv: list[str], signature: Path, env: dict[str, str]) -> None:
        super().__init__(argv, ("ssh-agent",), env)
        self._signature = signature

    def begin(self) -> None:
        self._signature.unlink(missing_ok=True)
        super().begin()


SSH_AGENT = KeyManager(
    "ssh-agent",
    "ssh-agent killed while it signs with an RSA key of 4096 bits",
    {"ssh-agent": _PACKAGE, "openssl": "openssl"},
    _prepare,
    _operate,
)

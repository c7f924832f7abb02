# SPDX-License-Identifier: MIT
"""SoftHSM, a PKCS#11 token in software: Debian's locks nothing."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, passphrase, rsa_key, run
from mlockwipe_lab.key_managers.operations import Command

_NEEDS = {"softhsm2-util": "softhsm2", "pkcs11-tool": "opensc", "openssl": "openssl"}
_MODULE = "/usr/lib/softhsm/libsofthsm2.so"


def _environment(directory: Path) -> dict[str, str]:
    """With a configuration that names where the token is now."""
    configuration = directory / "configuration"
    configuration.write_text(f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\n")
    return environment(SOFTHSM2_CONF=str(configuration))


def _prepare(directory: Path) -> list[Needle]:
    (directory / "tokens").mkdir()
    env, util, word = _environment(directory), need("softhsm2-util", "softhsm2"), passphrase(directory)
    pem = directory / "key.pem"
    needles = rsa_key(pem, word)
    run([util, "--init-token", "--slot", "0", "--label", "token", "--so-pin", word, "--pin", word], env=env)
    options = ["--token", "token", "--label", "key", "--id", "01", "--pin", word, "--file-pin", word]
    run([util, "--import", str(pem), *options], env=env)
    os.unlink(pem)
    (directory / "message").write_bytes(secrets.token_bytes(32))
    return needles


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    argv = [need("pkcs11-tool", "opensc"), "--module", _MODULE, "--login", "--pin", "env:WORD"]
    argv += ["--sign", "--id", "01", "--mechanism", "SHA256-RSA-PKCS"]
    argv += ["-i", str(directory / "message"), "-o", str(directory / "signature")]
    env = _environment(directory) | {"WORD": (directory / "passphrase").read_text()}
    yield Command(wrap(argv), ("pkcs11-tool",), env)


SOFTHSM = KeyManager(
    "softhsm2",
    "pkcs11-tool killed while SoftHSM signs with an RSA key of 4096 bits",
    _NEEDS,
    _prepare,
    _operate,
)

# SPDX-License-Identifier: MIT
"""What the halves of a key manager share: running tools, passphrases, and numbers as libraries keep them."""

import ctypes
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe_lab.key_managers import KeyManager, Needle

WINDOW = 32  # bytes of a number that are looked for

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def environment(**more: str) -> dict[str, str]:
    """The environment without what would lead a program to somebody's own keys, and with `more`."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "TMPDIR") if name in os.environ}
    return {"PATH": _PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", **kept, **more}


def missing(manager: KeyManager) -> list[str]:
    """What a key manager needs and is not installed here: a sentence for each."""
    return [_is_missing(name, package) for name, package in manager.needs.items() if not _is_there(name)]


def _is_there(name: str) -> bool:
    if ".so." not in name:
        return shutil.which(name, path=_PATH) is not None
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _is_missing(name: str, package: str) -> str:
    return f"{name} is not installed: apt-get install {package}"


def need(program: str, package: str) -> str:
    """The path of a program. Raises Refused, naming the package that brings it."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise Refused(_is_missing(program, package))
    return path


def run(argv: Sequence[str], *, input: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
    """What a tool prints. Raises Refused with what it said when it fails."""
    try:
        done = subprocess.run(argv, input=input, capture_output=True, env=env or environment())
    except FileNotFoundError as error:
        raise Refused(f"{argv[0]} is not installed") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise Refused(f"`{' '.join(argv)}` ended with {done.returncode}: {said[-600:]}")
    return done.stdout


def passphrase(directory: Path) -> str:
    """A new passphrase, written to DIRECTORY/passphrase without a newline."""
    text = secrets.token_urlsafe(24)
    (directory / "passphrase").write_text(text)
    return text


def number(label: str, value: int) -> list[Needle]:
    """A large number as libraries keep it: 64-bit words, the least significant first; and big-endian bytes.

    Half-way up, where neither the end of a number nor the header of an allocation stands.
    """
    words = value.to_bytes((value.bit_length() + 63) // 64 * 8, "little")
    at = len(words) // 16 * 8
    window = words[at : at + WINDOW]
    return [Needle(f"{label}, words", window), Needle(f"{label}, bytes", window[::-1])]


def rsa_key(path: Path, word: str) -> list[Needle]:
    """A new RSA key of 4096 bits in an encrypted PEM file (PKCS#8)."""
    openssl = need("openssl", "openssl")
    plain = run([openssl, "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"])
    text = run([openssl, "pkey", "-noout", "-text"], input=plain).decode()
    wrap = [openssl, "pkcs8", "-topk8", "-iter", "1000", "-passout", "env:WORD", "-out", str(path)]
    run(wrap, input=plain, env=environment(WORD=word))
    needles = []
    for label, name in (("d", "privateExponent"), ("p", "prime1"), ("q", "prime2"), ("u", "coefficient")):
        found = re.search(rf"^{name}:\n((?: +[0-9a-f:]+\n)+)", text, re.MULTILINE)
        assert found is not None, text
        needles += number(label, int(re.sub(r"[^0-9a-f]", "", found[1]), 16))
    return needles

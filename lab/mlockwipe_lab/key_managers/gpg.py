# SPDX-License-Identifier: MIT
"""GnuPG: the agent in the middle of an operation with an RSA key, and gpg in the middle of a long message.

gpg-agent locks 64 KiB of secure memory, and then forks its server: what runs has the parent's pages and none
of its locks. libgcrypt clears numbers after use, so a resting agent holds nothing in the clear.
"""

import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, number, passphrase, run
from mlockwipe_lab.key_managers.operations import Command
from mlockwipe_lab.key_managers.processes import wait_until

_LOOPBACK = ("--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback")
_USER = "key-manager@example.org"
_STREAM = 1 << 18  # bytes of a message that takes its time to arrive


def _gpg(directory: Path, *arguments: str) -> list[str]:
    """gpg with the passphrase from the file that `passphrase` has left."""
    return [need("gpg", "gpg"), *_LOOPBACK, "--passphrase-file", str(directory / "passphrase"), *arguments]


def _home(directory: Path) -> dict[str, str]:
    return environment(GNUPGHOME=str(directory / "home"))


@contextmanager
def _key(directory: Path) -> Iterator[dict[str, int]]:
    """A new RSA key as {letter: number}; protected by a passphrase.

    Few rounds protect it, so that most of an operation is done with the secret and not with the passphrase.
    """
    need("gpg-agent", "gpg-agent")
    (directory / "home").mkdir(mode=0o700)
    (directory / "home" / "gpg-agent.conf").write_text("s2k-count 65536\n")
    (directory / "message").write_bytes(secrets.token_bytes(64))
    word, env = passphrase(directory), _home(directory)
    bare = [need("gpg", "gpg"), *_LOOPBACK, "--passphrase", ""]
    try:
        run([*bare, "--quick-generate-key", _USER, "rsa4096", "sign,encrypt", "never"], env=env)
        numbers = _secret_numbers(run([*bare, "--export-secret-keys"], env=env))
        (file,) = (directory / "home" / "private-keys-v1.d").iterdir()
        change = f"/let word {word}\n/definq NEW_PASSPHRASE word\nPASSWD {file.stem}\n"
        run(
            [need("gpg-connect-agent", "gpg-agent"), "--no-autostart"],
            input=b"OPTION pinentry-mode=loopback\n" + change.encode(),
            env=env,
        )
        assert b"(protected-private-key" in file.read_bytes()
        yield numbers
    finally:
        _end_agent(directory)


def _end_agent(directory: Path) -> None:
    """It takes its sockets with it."""
    run([need("gpgconf", "gpgconf"), "--kill", "all"], env=_home(directory))
    wait_until(lambda: not list((directory / "home").glob("S.*")), "gpg-agent does not end")


def _secret_numbers(packet: bytes) -> dict[str, int]:
    """n, e, d, p, q and u of the RSA key at the beginning of an export that no passphrase protects.

    A packet for a secret key (RFC 4880, 5.5.3), with a header of the old format and two bytes of length.
    """
    assert packet[:1] == b"\x95", packet[:1]
    numbers, at = {}, 3 + 6  # after the header, and version, time and algorithm
    for letter in "nedpqu":
        if letter == "d":
            assert packet[at] == 0, "it is protected"
            at += 1
        end = at + 2 + (int.from_bytes(packet[at : at + 2], "big") + 7) // 8
        numbers[letter] = int.from_bytes(packet[at + 2 : end], "big")
        at = end
    assert numbers["p"] * numbers["q"] == numbers["n"]
    return numbers


def _needles(numbers: dict[str, int]) -> list[Needle]:
    return [needle for letter in "dpqu" for needle in number(letter, numbers[letter])]


def _encrypt(directory: Path, source: str, *options: str) -> None:
    argv = _gpg(directory, "--trust-model", "always", "--recipient", _USER, "--output", str(directory / "sealed"))
    run([*argv, *options, "--encrypt", str(directory / source)], env=_home(directory))


def _prepare_sign(directory: Path) -> list[Needle]:
    with _key(directory) as numbers:
        pass
    return _needles(numbers)


def _prepare_decrypt(directory: Path) -> list[Needle]:
    with _key(directory) as numbers:
        _encrypt(directory, "message")
    return _needles(numbers)


def _prepare_stream(directory: Path) -> list[Needle]:
    with _key(directory):
        (directory / "message").write_bytes(secrets.token_bytes(_STREAM))
        _encrypt(directory, "message", "--compress-algo", "none")
    show = _gpg(directory, "--show-session-key", "--output", "/dev/null", "--status-fd", "1")
    said = run([*show, "--decrypt", str(directory / "sealed")], env=_home(directory))
    _end_agent(directory)
    (key,) = re.findall(rb"SESSION_KEY \d+:([0-9A-F]+)", said)
    return [Needle("session key", bytes.fromhex(key.decode()))]


@contextmanager
def _operate_sign(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    argv = _gpg(directory, "--yes", "--output", str(directory / "signed"), "--sign", str(directory / "message"))
    yield Command(wrap(argv), ("gpg-agent",), _home(directory))


@contextmanager
def _operate_decrypt(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    argv = _gpg(directory, "--yes", "--output", str(directory / "opened"), "--decrypt", str(directory / "sealed"))
    yield Command(wrap(argv), ("gpg-agent",), _home(directory))


class _Stream(Command):
    """Decrypts a message of which the last part does not come until `finish`."""

    def __init__(self, directory: Path, wrap: Wrap) -> None:
        self._sealed = (directory / "sealed").read_bytes()
        self._opened = directory / "opened"
        argv = wrap(_gpg(directory, "--yes", "--output", str(self._opened), "--decrypt"))
        super().__init__(argv, ("gpg", "gpg-agent"), _home(directory))

    def begin(self) -> None:
        self._opened.unlink(missing_ok=True)
        self.start(stdin=subprocess.PIPE)
        self.feed(self._sealed[: _STREAM // 2])
        wait_until(lambda: self._opened.exists() and self._opened.stat().st_size, "gpg decrypts nothing")

    def finish(self) -> None:
        self.feed(self._sealed[_STREAM // 2 :])
        self.wait()


@contextmanager
def _operate_stream(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    yield _Stream(directory, wrap)


_NEEDS = {"gpg": "gpg", "gpg-agent": "gpg-agent", "gpgconf": "gpgconf"}

GPG = (
    KeyManager(
        "gpg-sign-rsa4096",
        "gpg-agent killed while it signs with an RSA key of 4096 bits",
        _NEEDS,
        _prepare_sign,
        _operate_sign,
    ),
    KeyManager(
        "gpg-decrypt-rsa4096",
        "gpg-agent killed while it decrypts with an RSA key of 4096 bits",
        _NEEDS,
        _prepare_decrypt,
        _operate_decrypt,
    ),
    KeyManager(
        "gpg-decrypt-stream",
        "gpg killed in the middle of a long message: the session key",
        _NEEDS,
        _prepare_stream,
        _operate_stream,
    ),
)

# SPDX-License-Identifier: MIT
"""cryptsetup: it holds the volume key while it wraps that with the passphrase for a new slot.

As of 2.6.1 it locks the buffers of passphrases and of the keys that are made of them, each by itself, but not the
volume key: that is locked where the heap happens to put it on the same page as such a buffer, and until one of them
is given back, which unlocks the page.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import PASSPHRASE, KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, passphrase, run
from mlockwipe_lab.key_managers.operations import Command

_PACKAGE = "cryptsetup-bin"
_ROUNDS = 50_000  # of PBKDF2 for the new slot: it has the volume key as long as they take
_SMALL = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m", "--pbkdf", "pbkdf2")


def _prepare(directory: Path) -> list[Needle]:
    key = secrets.token_bytes(64)  # AES-XTS: two keys of 256 bits
    word = passphrase(directory)
    (directory / "another").write_text(secrets.token_urlsafe(24))
    image = directory / "image"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    argv = [need("cryptsetup", _PACKAGE), "luksFormat", "--batch-mode", "--type", "luks2", *_SMALL]
    argv += ["--cipher", "aes-xts-plain64", "--key-size", "512", "--volume-key-file", "/dev/stdin"]
    argv += ["--pbkdf-force-iterations", "1000", "--key-file", str(directory / "passphrase"), str(image)]
    run(argv, input=key)
    return [
        Needle("volume key, first half", key[:32]),
        Needle("volume key, second half", key[32:]),
        Needle(PASSPHRASE, word.encode()),
    ]


class _AddKey(Command):
    """Adds a slot to a fresh copy of the image."""

    def __init__(self, directory: Path, wrap: Wrap) -> None:
        self._image, self._copy = directory / "image", directory / "copy"
        argv = [need("cryptsetup", _PACKAGE), "luksAddKey", "--batch-mode", "--pbkdf", "pbkdf2"]
        argv += ["--pbkdf-force-iterations", str(_ROUNDS), "--key-file", str(directory / "passphrase")]
        super().__init__(wrap([*argv, str(self._copy), str(directory / "another")]), ("cryptsetup",), environment())

    def begin(self) -> None:
        shutil.copy(self._image, self._copy)
        super().begin()


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    yield _AddKey(directory, wrap)


CRYPTSETUP = KeyManager(
    "cryptsetup-add-key",
    "cryptsetup killed while it adds a passphrase to a LUKS volume: the volume key",
    {"cryptsetup": _PACKAGE},
    _prepare,
    _operate,
)

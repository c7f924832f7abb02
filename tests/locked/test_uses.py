# SPDX-License-Identifier: MIT
"""What takes a LockedBuffer without a copy, as docs/library.md has it; and the examples there, which are run."""

import hashlib
import hmac
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlockwipe import LockedBuffer
from mlockwipe.linux import mm

DOCUMENT = Path(__file__).parents[2] / "docs" / "library.md"
SECRET = os.urandom(32)
ZEROS = bytes(16)


@pytest.mark.parametrize(
    "use",
    [
        lambda key: hashlib.sha256(key).digest(),
        lambda key: hashlib.sha3_256(key).digest(),
        lambda key: hashlib.blake2b(b"message", key=key).digest(),
        lambda key: hashlib.pbkdf2_hmac("sha256", key, b"salt", 2),
        lambda key: hashlib.scrypt(key, salt=b"salt", n=2, r=1, p=1),
        lambda key: hmac.digest(key, b"message", "sha256"),
        lambda key: hmac.digest(b"key", key, "sha256"),
        lambda key: hmac.compare_digest(key, SECRET),
        lambda key: b"before" + key,
    ],
)
@pytest.mark.usefixtures("kind")
def test_it_is_used_as_bytes_are(use: Callable[[Any], object]) -> None:
    assert use(LockedBuffer(SECRET)) == use(SECRET)
    assert use(LockedBuffer(SECRET)[:]) == use(SECRET)


@pytest.mark.usefixtures("kind")
def test_it_is_read_into_and_written_from(tmp_path: Path) -> None:
    buffer = LockedBuffer(len(SECRET))
    (tmp_path / "key").write_bytes(SECRET)
    with open(tmp_path / "key", "rb", buffering=0) as file:
        assert file.readinto(buffer) == len(SECRET)
        assert buffer == SECRET
        buffer.clear()
        file.seek(0)
        assert os.readv(file.fileno(), [buffer]) == len(SECRET)
        assert buffer == SECRET
    here, there = socket.socketpair()
    with here, there:
        here.sendall(buffer)
        received = LockedBuffer(len(SECRET))
        assert there.recv_into(received) == len(SECRET)
    assert received == SECRET
    assert subprocess.run(["cat"], input=buffer[:], capture_output=True, check=True).stdout == SECRET


def places_of(secret: bytes) -> int:
    """How often it stands in the memory of this process that the kernel can read, but for `secret` itself."""
    found = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps.readlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("rw") and "[v" not in line:
                try:
                    found += os.pread(memory.fileno(), end - start, start).count(secret)
                except OSError:  # memfd_secret
                    continue
    return found


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize(("buffering", "copies"), [(0, 0), (-1, 1)])
def test_an_unbuffered_file_leaves_no_copy(tmp_path: Path, buffering: int, copies: int) -> None:
    program = """
import os, sys
from mlockwipe import LockedBuffer
from tests.locked.test_uses import places_of
buffer = LockedBuffer(32)
file = open(sys.argv[1], "rb", buffering=int(sys.argv[2]))
file.readinto(buffer)
half = LockedBuffer(buffer[:16]), LockedBuffer(buffer[16:])
before = places_of(bytes(half[0]))
print(before)
"""
    (tmp_path / "key").write_bytes(SECRET)
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "key", str(buffering)], capture_output=True, text=True, check=True
    )
    # the needle itself, and the page that reading memory went through, may be counted with it
    done_without = subprocess.run(
        [sys.executable, "-c", program.replace("file.readinto(buffer)", "os.readv(file.fileno(), [buffer])"),
         tmp_path / "key", "0"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) - int(done_without.stdout) == copies


def test_hmac_new_wants_bytes() -> None:
    with pytest.raises(TypeError, match="expected bytes or bytearray"):
        hmac.new(LockedBuffer(SECRET), b"message", "sha256")  # type: ignore[call-overload]


def test_ssl_wants_bytes(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
        "00000000000000000000000000000000\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    )
    certificate = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not certificate:
        pytest.skip("there is no certificate here: apt-get install ca-certificates")
    chain = tmp_path / "chain.pem"
    chain.write_text(ssl.DER_cert_to_PEM_cert(certificate[0]))
    with pytest.raises(TypeError, match="must return a string"):
        ssl.create_default_context().load_cert_chain(chain, key, password=lambda: LockedBuffer(SECRET)[:])  # type: ignore[arg-type]


def test_cryptography_takes_its_memoryview_or_it_itself() -> None:
    aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead", reason="cryptography is not installed")
    with LockedBuffer(SECRET) as buffer:
        keys = [buffer[:], buffer] if sys.version_info >= (3, 12) else [buffer[:]]
        for key in keys:
            sealed = aead.AESGCM(key).encrypt(ZEROS[:12], b"message", None)
            assert sealed == aead.AESGCM(SECRET).encrypt(ZEROS[:12], b"message", None)


def test_the_examples_of_the_document_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LockedBuffer, "from_tty", lambda prompt: LockedBuffer(b"typed"))
    (tmp_path / "key.pem").write_bytes(b"a key")
    examples = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    read_end, write_end = os.pipe()
    names: dict[str, Any] = {"hashlib": hashlib, "os": os, "salt": ZEROS, "fd_out": write_end}
    names["received"] = b"user:SECRET"
    for example in examples:
        exec(example, names)
    assert names["key"] == hashlib.scrypt(b"typed", salt=ZEROS, n=2**14, r=8, p=1)
    assert names["digest"] != hashlib.sha256(bytes(32)).digest()
    assert names["passphrase"].released
    assert names["pem"] == b"a key"
    assert os.read(read_end, 100) == b"SECRET"
    assert bytes(names["secret"]) == bytes(6)
    assert names["token"].released
    os.close(read_end)
    os.close(write_end)


def test_the_document_quotes_the_limit_as_it_is() -> None:
    assert "can't lock 4096 more bytes of memory: 8388608 are locked" in DOCUMENT.read_text()
    assert mm.PAGE_SIZE == 4096

# SPDX-License-Identifier: MIT
"""A service in plain Python: a page of its own, mlock through ctypes, and OpenSSL's functions on its address."""

import ctypes
import mmap
import sys
from pathlib import Path

from mlockwipe.linux import mm
from mlockwipe_lab.key_managers.programs import KEY_SIZE, ROUNDS, SALT, serve


def main() -> None:
    passphrase = Path(sys.argv[1]).read_bytes()
    libcrypto = ctypes.CDLL("libcrypto.so.3")
    libcrypto.EVP_sha256.restype = ctypes.c_void_p
    sha256 = ctypes.c_void_p(libcrypto.EVP_sha256())
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE)
    key = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    mm.mlock(key.value or 0, mmap.PAGESIZE)
    # Straight into the locked page: what Python's own objects held of the key would not be locked.
    if not libcrypto.PKCS5_PBKDF2_HMAC(passphrase, len(passphrase), SALT, len(SALT), ROUNDS, sha256, KEY_SIZE, key):
        sys.exit("PKCS5_PBKDF2_HMAC failed")

    def answer(message: bytes) -> bytes:
        digest = ctypes.create_string_buffer(32)
        libcrypto.HMAC(sha256, key, KEY_SIZE, message, ctypes.c_size_t(len(message)), digest, None)
        return digest.raw

    serve(answer)


if __name__ == "__main__":
    main()

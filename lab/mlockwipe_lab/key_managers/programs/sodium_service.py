# SPDX-License-Identifier: MIT
"""A service with libsodium: sodium_malloc, and sodium_mprotect_noaccess whenever the key is not used."""

import ctypes
import sys
from pathlib import Path

from mlockwipe_lab.key_managers.programs import KEY_SIZE, serve


def main() -> None:
    passphrase = Path(sys.argv[1]).read_bytes()
    sodium = ctypes.CDLL("libsodium.so.23")
    sodium.sodium_malloc.restype = ctypes.c_void_p
    if sodium.sodium_init() < 0:
        sys.exit("sodium_init failed")
    key = ctypes.c_void_p(sodium.sodium_malloc(ctypes.c_size_t(KEY_SIZE)))
    derive(sodium, passphrase, key)
    sodium.sodium_mprotect_noaccess(key)

    def answer(message: bytes) -> bytes:
        tag = ctypes.create_string_buffer(32)
        sodium.sodium_mprotect_readonly(key)
        sodium.crypto_auth(tag, message, ctypes.c_ulonglong(len(message)), key)
        sodium.sodium_mprotect_noaccess(key)
        return tag.raw

    serve(answer)


def derive(sodium: ctypes.CDLL, passphrase: bytes, key: object) -> None:
    sodium.crypto_generichash(
        key, ctypes.c_size_t(KEY_SIZE), passphrase, ctypes.c_ulonglong(len(passphrase)), None, ctypes.c_size_t(0)
    )


if __name__ == "__main__":
    main()

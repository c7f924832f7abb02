# SPDX-License-Identifier: MIT
"""A service with OpenSSL's secure heap: it signs with an RSA key that is read from an encrypted PEM file."""

import ctypes
import sys
from pathlib import Path

from mlockwipe_lab.key_managers.programs import serve

_HEAP, _SMALLEST = 1 << 16, 16


def main() -> None:
    pem, passphrase = sys.argv[1].encode(), Path(sys.argv[2]).read_bytes()
    libcrypto = ctypes.CDLL("libcrypto.so.3")
    for name in ("BIO_new_file", "PEM_read_bio_PrivateKey", "EVP_MD_CTX_new", "EVP_sha256"):
        getattr(libcrypto, name).restype = ctypes.c_void_p
    # Before anything else: the secure heap is where numbers of private keys go once it is there.
    if libcrypto.CRYPTO_secure_malloc_init(ctypes.c_size_t(_HEAP), ctypes.c_size_t(_SMALLEST)) != 1:
        sys.exit("CRYPTO_secure_malloc_init failed, or the heap could not be locked")
    file = ctypes.c_void_p(libcrypto.BIO_new_file(pem, b"r"))
    key = ctypes.c_void_p(libcrypto.PEM_read_bio_PrivateKey(file, None, None, passphrase))
    libcrypto.BIO_free(file)
    if not key:
        sys.exit(f"there is no key in {sys.argv[1]}, or not by this passphrase")
    sha256 = ctypes.c_void_p(libcrypto.EVP_sha256())

    def answer(message: bytes) -> bytes:
        signature, size = ctypes.create_string_buffer(1024), ctypes.c_size_t(1024)
        context = ctypes.c_void_p(libcrypto.EVP_MD_CTX_new())
        libcrypto.EVP_DigestSignInit(context, None, sha256, None, key)
        libcrypto.EVP_DigestSign(context, signature, ctypes.byref(size), message, ctypes.c_size_t(len(message)))
        libcrypto.EVP_MD_CTX_free(context)
        return signature.raw[: size.value]

    serve(answer)


if __name__ == "__main__":
    main()

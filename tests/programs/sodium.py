# SPDX-License-Identifier: MIT
"""sodium.py WAY: a key in libsodium's guarded heap, which locks it and makes it PROT_NONE; then the end in one way.

`freed`: sodium_free, which clears it itself. `killed`, `exits`: the key is still there, under PROT_NONE. The witness,
if a descriptor is given as second argument, is shown the key's page.
"""

import ctypes
import os
import signal
import sys

from mlockwipe.contract.pattern import paint
from mlockwipe.linux.mm import PAGE_SIZE, vmsplice

sodium = ctypes.CDLL("libsodium.so.23")
sodium.sodium_malloc.restype = ctypes.c_void_p
sodium.sodium_malloc.argtypes = [ctypes.c_size_t]
for name in ("sodium_free", "sodium_mprotect_noaccess", "sodium_mprotect_readonly", "sodium_mprotect_readwrite"):
    getattr(sodium, name).argtypes = [ctypes.c_void_p]

way, witness = sys.argv[1], int(sys.argv[2])
assert sodium.sodium_init() >= 0
key = sodium.sodium_malloc(PAGE_SIZE)  # a multiple of a page: it begins where a page begins
assert key and key % PAGE_SIZE == 0
paint(key, 1)
assert vmsplice(witness, key, PAGE_SIZE, 0) == PAGE_SIZE
assert sodium.sodium_mprotect_noaccess(key) == 0
assert sodium.sodium_mprotect_readonly(key) == 0
sys.stdout.write(ctypes.string_at(key, 8).hex() + "\n")
sys.stdout.flush()
assert sodium.sodium_mprotect_noaccess(key) == 0
match way:
    case "freed":
        sodium.sodium_free(key)
    case "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    case "exits":
        os._exit(7)

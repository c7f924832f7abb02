# SPDX-License-Identifier: MIT
"""locked_python.py WITNESS: an interpreter with all its memory locked, present and future, at common work.

It uses children by subprocess and by multiprocessing's fork, and threads; it shows a page that it mapped after the
lock, and ends with that page mapped.
"""

import ctypes
import hashlib
import multiprocessing
import subprocess
import sys
import threading

from mlockwipe.contract.pattern import paint
from mlockwipe.linux import mm, mman

MCL_CURRENT, MCL_FUTURE = 1, 2

libc = ctypes.CDLL(None, use_errno=True)


def square(number: int) -> int:
    return number * number


def hashed(texts: list[bytes], where: dict[bytes, str]) -> None:
    for text in texts:
        where[text] = hashlib.sha256(text * 10000).hexdigest()[:8]


def main() -> None:
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        raise OSError(ctypes.get_errno(), "mlockall")

    shell = subprocess.run(
        ["sh", "-c", "read line; echo got $line; exit 5"], input="it\n", text=True, capture_output=True
    )
    print(shell.returncode, shell.stdout.strip())
    missing = ""
    try:
        subprocess.run(["/nonexistent/program"])
    except FileNotFoundError as error:
        missing = str(error.filename)
    print(missing)

    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(square, range(10)))

    results: dict[bytes, str] = {}
    texts = [b"%d" % number for number in range(32)]
    threads = [threading.Thread(target=hashed, args=(texts[start::4], results)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(hashlib.sha256("".join(results[text] for text in texts).encode()).hexdigest())

    address = mm.mmap(0, mm.PAGE_SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    paint(address, 1)
    mm.vmsplice(int(sys.argv[1]), address, mm.PAGE_SIZE, 0)
    sys.exit(9)


if __name__ == "__main__":
    main()

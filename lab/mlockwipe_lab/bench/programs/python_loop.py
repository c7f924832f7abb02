# SPDX-License-Identifier: MIT
"""python_loop.py COUNT PROGRAM: Python, with all its memory locked, runs another program again and again."""

import ctypes
import subprocess
import sys
import time

MCL_CURRENT, MCL_FUTURE = 1, 2


def main() -> None:
    count, program = int(sys.argv[1]), sys.argv[2]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE):
        sys.exit(f"mlockall: errno {ctypes.get_errno()}")
    subprocess.run([program], check=True)
    start = time.perf_counter_ns()
    for _ in range(count):
        subprocess.run([program], check=True)
    print("subprocess", (time.perf_counter_ns() - start) / count)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""How many locked pages are wiped while a real-time task keeps CPU 1 for itself, and after it, as JSON.

`python -m mlockwipe_lab.kernel_checks.busy_cpu` runs in a guest, for it changes the machine's settings. The pages of
one process are referred to by the batches of CPU 1 when it ends, and CPU 1 does not give them up; those of another by
a pipe, which is read to its end.
"""

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from mlockwipe.linux import mm, mman
from mlockwipe_lab.kernel_checks.in_guest import vmstat
from mlockwipe_lab.kernel_checks.module_in_guest import PARAMETERS

PAGES = 8  # fewer than a batch takes
SIZE = PAGES * mm.PAGE_SIZE
_DEBUG = Path("/sys/kernel/debug")
_FAIR_SERVER = _DEBUG / "sched/fair_server/cpu1/runtime"  # Linux 6.12: what others get beside real-time tasks


def let_real_time_tasks_keep_a_cpu() -> None:
    Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
    if not (_DEBUG / "sched").exists():
        subprocess.run(["mount", "-t", "debugfs", "debugfs", str(_DEBUG)], check=True)
    if _FAIR_SERVER.exists():
        _FAIR_SERVER.write_text("0")


def count(what: str) -> int:
    """Pages that were 'wiped' or 'deferred', by the module if it is loaded."""
    return int((PARAMETERS / what).read_text()) if PARAMETERS.exists() else vmstat()[f"init_mlocked_{what}"]


def fork(body: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        body()
        os._exit(0)
    return pid


def mapped() -> int:
    return mm.mmap(0, SIZE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)


def main() -> None:
    let_real_time_tasks_keep_a_cpu()
    os.sched_setaffinity(0, {0})
    stop = ctypes.c_ubyte.from_address(
        mm.mmap(0, 1, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    )
    ready, go = os.pipe(), os.pipe()
    at = mapped()

    def ends() -> None:
        mm.mlock2(at, SIZE, mman.MLOCK_ONFAULT)
        os.sched_setaffinity(0, {1})
        ctypes.memset(at, 1, SIZE)
        os.sched_setaffinity(0, {0})
        os.write(ready[1], b".")
        os.read(go[0], 1)

    def keeps_the_cpu() -> None:
        os.sched_setaffinity(0, {1})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.write(ready[1], b".")
        end = time.monotonic() + 60
        while not stop.value and time.monotonic() < end:
            pass

    def in_a_pipe() -> None:
        mm.mlock(at, SIZE)
        ctypes.memset(at, 1, SIZE)
        out, into = os.pipe()
        mm.vmsplice(into, at, SIZE)
        mm.munmap(at, SIZE)
        os.read(out, SIZE)

    before = {what: count(what) for what in ("wiped", "deferred")}

    def counted(what: str, enough: int = 0, seconds: float = 0) -> int:
        end = time.monotonic() + seconds
        while (pages := count(what) - before[what]) < enough and time.monotonic() < end:
            time.sleep(0.02)
        return pages

    ending = fork(ends)
    os.read(ready[0], 1)
    busy = fork(keeps_the_cpu)
    os.read(ready[0], 1)
    os.write(go[1], b".")
    began = time.monotonic()
    os.waitpid(ending, 0)
    seen: dict[str, float] = {"end_took": time.monotonic() - began}
    seen["deferred_by_end"] = counted("deferred")
    os.waitpid(fork(in_a_pipe), 0)
    seen["wiped_while_busy"] = counted("wiped", PAGES, 10)
    time.sleep(0.5)
    seen["wiped_while_busy"] = counted("wiped")
    seen["kept_busy"] = os.waitpid(busy, os.WNOHANG) == (0, 0)
    stop.value = 1
    os.waitpid(busy, 0)
    seen["wiped"] = counted("wiped", 2 * PAGES, 10)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()

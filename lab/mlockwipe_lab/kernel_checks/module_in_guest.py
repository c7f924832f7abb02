# SPDX-License-Identifier: MIT
"""The module in a guest, called by name through `mlockwipe_lab.vm.guest`: loaded, switched, stressed."""

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from mlockwipe.errors import Refused
from mlockwipe.kernel import dkms
from mlockwipe.kernel.dkms import System
from mlockwipe_lab.kernel_checks import in_guest
from mlockwipe_lab.kernel_checks.in_guest import stress

PARAMETERS = Path("/sys/module/init_mlocked_on_free/parameters")
_libc = ctypes.CDLL(None, use_errno=True)
_FINIT_MODULE, _DELETE_MODULE = 313, 176  # of x86-64
COUNTERS = ("calls", "wiped", "deferred", "shared", "failed")
LOADED = 0.1  # seconds of work with the module before it is unloaded again


def load(path: str, *parameters: str) -> str:
    """What the kernel refuses it with; nothing when the module is loaded.

    By the system call: starting insmod takes longer than loading, where a loaded machine reads it through 9p.
    """
    with open(path, "rb") as module:
        return _system_call(_FINIT_MODULE, module.fileno(), " ".join(parameters).encode(), 0)


def unload() -> str:
    """What the kernel refuses it with; nothing when the module is gone."""
    return _system_call(_DELETE_MODULE, b"init_mlocked_on_free", os.O_NONBLOCK)


def _system_call(number: int, *arguments: int | bytes) -> str:
    return os.strerror(ctypes.get_errno()) if _libc.syscall(ctypes.c_long(number), *arguments) else ""


def installed(path: str) -> None:
    """Put the module where DKMS does, and modprobe finds it."""
    place = Path("/lib/modules") / os.uname().release
    place.unlink(missing_ok=True)  # virtme's link to the directory of the host
    (place / "updates/dkms").mkdir(parents=True)
    shutil.copy(path, place / "updates/dkms")
    subprocess.run(["depmod", place.name], check=True)


def restrict(how: str) -> None:
    """Take no module any more without a signature of a trusted key; not even the kernel can take that back."""
    if how == "lockdown":
        subprocess.run(["mount", "-t", "securityfs", "none", "/sys/kernel/security"])  # if it is not there
        Path("/sys/kernel/security/lockdown").write_text("integrity")
    else:
        Path("/sys/module/module/parameters/sig_enforce").write_text("Y")


def counters() -> dict[str, int]:
    return {name: int((PARAMETERS / name).read_text()) for name in COUNTERS}


def _locked(pages: int) -> mmap.mmap:
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(b"S" * len(memory))
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(memory))):
        raise OSError(ctypes.get_errno(), "mlock")
    return memory


def locked_and_unmapped(pages: int) -> int:
    """How many pages are wiped when so many are."""
    before = counters()["wiped"]
    _locked(pages).close()
    time.sleep(0.2)
    return counters()["wiped"] - before


def child_unlocks(pages: int, unlocked: int) -> int:
    """How many pages are wiped when a child that has written to all of them unlocks some and ends."""
    memory = _locked(pages)
    before = counters()["wiped"]
    pid = os.fork()
    if pid == 0:
        memory.seek(0)
        memory.write(b"C" * len(memory))
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        os._exit(unlocked and _libc.munlock(ctypes.c_void_p(address), ctypes.c_size_t(unlocked * mmap.PAGESIZE)))
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(status, "the child")
    time.sleep(0.2)
    wiped = counters()["wiped"] - before
    memory.close()
    return wiped


def _pipe_that_holds(pages: int) -> tuple[int, int]:
    """A pipe into which locked pages were spliced, which are not mapped any more: both its ends."""
    reader, writer = os.pipe()
    memory = _locked(pages)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    iov = (ctypes.c_size_t * 2)(address, len(memory))
    if _libc.vmsplice(writer, ctypes.byref(iov), 1, 0) != len(memory):
        raise OSError(ctypes.get_errno(), "vmsplice")
    memory.close()
    return reader, writer


def unload_while_a_pipe_holds_pages(pages: int) -> dict[str, Any]:
    """vmsplice locked pages into a pipe, unmap them, try to unload; then read the pipe, and unload."""
    before = counters()
    reader, writer = _pipe_that_holds(pages)
    told: dict[str, Any] = {"refused": unload()}
    if not told["refused"]:
        return told
    told["deferred"] = counters()["deferred"] - before["deferred"]
    data = b""
    while len(data) < pages * mmap.PAGESIZE:
        data += os.read(reader, 1 << 16)
    told["data"] = "whole" if data == b"S" * len(data) else "not whole"
    os.close(reader)
    os.close(writer)
    time.sleep(2)  # it looks again once a second
    told["wiped"] = counters()["wiped"] - before["wiped"]
    told["unloaded"] = unload()
    return told


def unload_while_a_pipe_is_closed(pages: int, seconds: float) -> str:
    """The same with a pipe that is closed after so long, and what `uninstall` says of the unloading."""
    ends = _pipe_that_holds(pages)

    def close() -> None:
        for end in ends:
            os.close(end)

    later = threading.Timer(seconds, close)
    later.start()
    try:
        dkms.unload(System())
    except Refused as refused:
        return f"refused: {refused}"
    finally:
        later.join()
    return ""


def stressed(argv: list[str], *, exact: bool) -> dict[str, Any]:
    """Run mm_stress: its counts, with those of the module since it was loaded. `exact`: without compaction, for what
    is released in the middle of a migration is known to be missed."""
    if exact:
        in_guest._compact = lambda end: None
    return {**stress(argv, exact=exact), "module": counters()}


def cycles(argv: list[str], path: str, loads: int, switches: int, limit: float) -> dict[str, Any]:
    """Switch the module on and off, and unload and load it, again and again while mm_stress runs, for `limit` seconds
    at most; then it is loaded and on. The counts of the runs, how often each was done, what was refused but for pages
    that waited, how long each took, and how many pages were wiped between a load and its unload."""
    runs: list[dict[str, Any]] = []
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            runs.append(stress(argv, exact=False))

    worker = threading.Thread(target=work)
    worker.start()
    # The load takes all of the processor that is left: whoever loads interrupts it wherever it is, and soon.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -20)
    copy = shutil.copy(path, "/tmp")  # in memory
    began = time.monotonic()
    done = {"loads": 0, "switches": 0, "busy": 0, "wiped": 0}
    refused: list[str] = []
    took: dict[str, list[float]] = {"load": [], "unload": []}

    def timed(what: str, change: Callable[[], str]) -> str:
        start = time.monotonic()
        said = change()
        if not said:
            took[what].append(time.monotonic() - start)
        return said

    try:
        while done["switches"] < switches and time.monotonic() < began + limit:
            (PARAMETERS / "enabled").write_text("01"[done["switches"] % 2])
            done["switches"] += 1
            time.sleep(0.01)
        (PARAMETERS / "enabled").write_text("1")
        while done["loads"] < loads and not refused and time.monotonic() < began + limit:
            time.sleep(LOADED)
            wiped = counters()["wiped"]
            if said := timed("unload", unload):
                if said != os.strerror(errno.EAGAIN):  # pages wait
                    refused.append(said)
                done["busy"] += 1
                continue
            done["wiped"] += wiped
            if said := timed("load", lambda: load(copy, "enabled=1")):
                refused.append(said)
            done["loads"] += 1
    finally:
        end.set()
        worker.join()
    times = {
        what: {"median": round(median(each), 3), "most": round(max(each), 3)} for what, each in took.items() if each
    }
    return {"runs": runs, "done": done, "refused": refused, "seconds": round(time.monotonic() - began), "took": times}

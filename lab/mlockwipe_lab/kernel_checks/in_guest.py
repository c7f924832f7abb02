# SPDX-License-Identifier: MIT
"""What runs in a guest, called by name through `mlockwipe_lab.vm.guest`; it changes that machine's settings."""

import json
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

_MM = Path("/sys/kernel/mm")
_KHUGEPAGED = _MM / "transparent_hugepage/khugepaged"
_BUSY = {  # the kernel's daemons work all the time
    _MM / "transparent_hugepage/enabled": "madvise",
    _MM / "transparent_hugepage/defrag": "madvise",
    _MM / "transparent_hugepage/hugepages-64kB/enabled": "always",
    _KHUGEPAGED / "scan_sleep_millisecs": "10",
    _KHUGEPAGED / "alloc_sleep_millisecs": "10",
    _KHUGEPAGED / "pages_to_scan": "4096",
    _MM / "ksm/sleep_millisecs": "10",
    _MM / "ksm/run": "1",
}


def stress(argv: list[str], *, exact: bool) -> dict[str, Any]:
    """Run programs/mm_stress.c while memory is compacted again and again. `exact`: no KSM, no swap, which are
    known to leave something. The counts of the program, with those of /proc/vmstat."""
    for path, value in _BUSY.items():
        with suppress(FileNotFoundError):  # a kernel without it
            path.write_text(value)
    if exact:
        (_MM / "ksm/run").write_text("2")  # unmerges all, and stops
        subprocess.run(["swapoff", "-a"], check=True)
    end = threading.Event()
    compaction = threading.Thread(target=_compact, args=(end,))
    compaction.start()
    try:
        ran = subprocess.run(argv, capture_output=True, text=True)
    finally:
        end.set()
        compaction.join()
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"status {ran.returncode}: {ran.stderr}")
    return {**json.loads(ran.stdout), "vmstat": vmstat()}


def _compact(end: threading.Event) -> None:
    while not end.wait(0.1):
        Path("/proc/sys/vm/compact_memory").write_text("1")


def vmstat() -> dict[str, int]:
    """What /proc/vmstat counts."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def run(argv: list[str], limit: float) -> dict[str, Any]:
    """Run a command: its status and what it said."""
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=limit)
    except subprocess.TimeoutExpired:
        return {"status": None, "said": ""}
    return {"status": ran.returncode, "said": ran.stdout + ran.stderr}

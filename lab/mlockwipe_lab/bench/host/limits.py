# SPDX-License-Identifier: MIT
"""How much memory may be locked here, and how much there is."""

import resource
from pathlib import Path

from mlockwipe.linux import procfs

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_CAP_IPC_LOCK = 1 << 14


class Skipped(Exception):
    """A measurement can't be made on this machine; why."""


def raise_memlock() -> None:
    """Allow this process and its children to lock as much as it may allow itself."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, PermissionError):
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def memlock() -> int | None:
    """The bytes that may be locked, None for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    may_lock_all = int(procfs.status_field(_self(), "CapEff"), 16) & _CAP_IPC_LOCK
    return None if may_lock_all or soft == resource.RLIM_INFINITY else soft


def need(length: int) -> None:
    """Skipped unless `length` bytes can be locked."""
    limit = memlock()
    if limit is not None and limit < length:
        raise Skipped(f"RLIMIT_MEMLOCK is {limit >> 10} KiB and can't be raised: needs {length >> 10} KiB")
    available = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    if available < length * 3 // 2:
        raise Skipped(f"{available >> 20} MiB of memory are free: needs {length * 3 // 2 >> 20} MiB")


def need_huge_pages() -> None:
    """Skipped where the kernel makes none of private memory."""
    if not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text():
        raise Skipped(f"transparent huge pages are off: echo madvise > {HUGE_PAGES}")


def _self() -> int:
    return int(Path("/proc/self").readlink().name)

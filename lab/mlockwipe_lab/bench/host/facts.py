# SPDX-License-Identifier: MIT
"""The facts of a machine without which its numbers say nothing."""

import os
import platform
from pathlib import Path

import mlockwipe
from mlockwipe_lab.bench.host import limits

Fact = str | int | float | None | list[float]


def facts() -> dict[str, Fact]:
    cpu = Path("/proc/cpuinfo").read_text()
    return {
        "mlockwipe": mlockwipe.__version__,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu": _field(cpu, "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "virtual_machine": "hypervisor" in (_field(cpu, "flags") or "").split(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "transparent_hugepage": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "init_on_free": _read("/sys/module/page_alloc/parameters/init_on_free"),
        "memlock_limit": limits.memlock(),
        "root": os.geteuid() == 0,
    }


def _field(text: str, name: str) -> str | None:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _chosen(path: str) -> str | None:
    """The word in brackets."""
    text = _read(path)
    return text.partition("[")[2].partition("]")[0] if text else None

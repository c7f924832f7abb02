# SPDX-License-Identifier: MIT
"""To whom the pages with a secret belong, and who has locked them."""

import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlockwipe.linux import physical, procfs
from mlockwipe.linux.mm import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Mapped:
    """A page of a process: where it stands there, in what kind of mapping, and whether that one is locked now."""

    pid: int
    address: int
    name: str
    locked: bool


def of_process(pid: int, wanted: Collection[int]) -> Iterator[tuple[int, Mapped]]:
    """Those pages of a process that are in the `wanted` frames (physical address / PAGE_SIZE), by frame.

    The process should stand still. Raises OSError when it is gone.
    """
    pages = physical.mapped(pid, wanted)
    if pages:
        smaps = Path(f"/proc/{pid}/smaps").read_text(errors="surrogateescape")
        for vma, flags in procfs.vma_flags(smaps):
            for frame, address in pages.items():
                if vma.start <= address < vma.end:
                    yield frame, Mapped(pid, address, vma.name, "lo" in flags)


# Locks that were taken: a forked child has the pages of its parent, and not their locks.

ITSELF, ANCESTOR = "itself", "ancestor"

_TRACING = Path("/sys/kernel/tracing")
_INSTANCE = _TRACING / "instances" / f"mlockwipe-{os.getpid()}"
_CALLS = tuple(f"syscalls/sys_enter_{name}" for name in ("mlock", "mlock2", "mlockall"))
_EVENTS = (*_CALLS, "sched/sched_process_fork")
_EVENT = re.compile(
    r"-(?P<task>\d+)\s+\[\d+\][^:]*:\s*"
    r"(?:sys_(?P<call>mlockall|mlock2?)\((?P<arguments>[^)]*)\)"
    r"|sched_process_fork: .*\bpid=(?P<parent>\d+) .*child_pid=(?P<child>\d+))"
)


@dataclass(slots=True)
class Locks:
    """Calls that locked memory since `traced`, and who was forked by whom. `known`: whether the kernel can say."""

    known: bool = False

    def taken(self, pid: int) -> bool:
        """Whether `pid` or one of its ancestors has ever locked anything."""
        ranges, parents = self._read()
        return any(task in ranges for task in _line(pid, parents))

    def by_whom(self, pid: int, address: int) -> str | None:
        """Whether the process 'itself' or an 'ancestor' has ever locked this page; the nearest of them."""
        ranges, parents = self._read()
        own = {pid, *procfs.tasks(pid)}
        for task in _line(pid, parents):
            if any(start - PAGE_SIZE < address < end for start, end in ranges.get(task, ())):
                return ITSELF if task in own else ANCESTOR
        return None

    def _read(self) -> tuple[dict[int, list[tuple[int, int]]], dict[int, int]]:
        ranges: dict[int, list[tuple[int, int]]] = {}
        parents: dict[int, int] = {}
        if self.known:
            for event in _EVENT.finditer((_INSTANCE / "trace").read_text(errors="replace")):
                if event["call"] == "mlockall":
                    ranges.setdefault(int(event["task"]), []).append((0, 1 << 47))
                elif event["call"]:
                    start, length = (
                        int(value, 16) for value in re.findall(r"(?:start|len): (\w+)", event["arguments"])
                    )
                    ranges.setdefault(int(event["task"]), []).append((start, start + length))
                else:
                    parents[int(event["child"])] = int(event["parent"])
        return ranges, parents


def _line(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """The tasks of a process, and those of which it was forked. A pid may have been used before."""
    yield from procfs.tasks(pid)
    met: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in met:
        met.add(pid)
        yield pid


@contextmanager
def traced() -> Iterator[Locks]:
    """Trace who locks memory. Needs root and tracefs, which is mounted here where it is not."""
    locks = Locks()
    try:
        with suppress(OSError):
            if not (_TRACING / "instances").is_dir():
                _mount()
            _INSTANCE.mkdir(exist_ok=True)
            (_INSTANCE / "trace").write_text("")
            for event in _EVENTS:
                (_INSTANCE / "events" / event / "enable").write_text("1")
            locks.known = True
        yield locks
    finally:
        with suppress(OSError):
            for event in _EVENTS:
                (_INSTANCE / "events" / event / "enable").write_text("0")
            _INSTANCE.rmdir()


def _mount() -> None:
    subprocess.run(["mount", "-t", "tracefs", "none", str(_TRACING)], check=False, capture_output=True)

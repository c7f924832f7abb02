# SPDX-License-Identifier: MIT
"""A control group in which a program can run out of memory, or into swap, without harm to any other."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_cgroup(limit: int, *, swap: bool = False) -> Iterator[Callable[[], object] | None]:
    """What the calling process joins a new group of `limit` bytes with; None where no group can be made.

    `swap`: what is above the limit is swapped out, as far as there is swap, and not refused."""
    group = _create(limit, swap)
    if group is None:
        yield None
        return
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        _remove(group)


def _create(limit: int, swap: bool) -> Path | None:
    for parent, setting in _parents():
        group = parent / f"mlockwipe-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:  # not there, not ours, or read-only
            continue
        try:
            (group / setting).write_text(str(limit))
            if not swap:
                with suppress(OSError):  # no swap, or not counted
                    (group / "memory.swap.max").write_text("0")
        except OSError:  # no memory controller for this group
            group.rmdir()
            continue
        return group
    return None


def _remove(group: Path) -> None:
    """Remove a group as soon as its last task is gone: one that was killed may be, for a moment after the wait."""
    for _ in range(100):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.01)


def _parents() -> Iterator[tuple[Path, str]]:
    """This process's own groups, and the file that limits memory in them."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield _ROOT / path.lstrip("/"), "memory.max"
        elif "memory" in controllers.split(","):
            yield _ROOT / controllers / path.lstrip("/"), "memory.limit_in_bytes"

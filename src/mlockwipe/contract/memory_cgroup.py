# SPDX-License-Identifier: MIT
"""A control group in which a program can run out of memory without harm to any other."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_ROOT = "/sys/fs/cgroup"


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Callable[[], None] | None]:
    """What the calling process joins a new group of `limit` bytes with; None where no group can be made."""
    group = _create(limit)
    try:
        yield None if group is None else lambda: _write(f"{group}/cgroup.procs", os.getpid())
    finally:
        if group is not None:
            _remove(group)


def _remove(group: str) -> None:
    """Remove a group, as soon as the last task in it is gone: one that was killed may be for a moment after the wait."""
    for _ in range(100):
        with suppress(OSError):
            os.rmdir(group)  # noqa: PTH106
            return
        time.sleep(0.01)


def _create(limit: int) -> str | None:
    for parent, setting in _parents():
        group = f"{parent}/mlockwipe-{os.getpid()}"
        try:
            os.mkdir(group)  # noqa: PTH102
        except OSError:  # not there, not ours, or read-only
            continue
        try:
            _write(f"{group}/{setting}", limit)
        except OSError:  # no memory controller for this group
            os.rmdir(group)  # noqa: PTH106
            continue
        return group
    return None


def _parents() -> Iterator[tuple[str, str]]:
    """This process's own groups, and the file that limits memory in them."""
    with open("/proc/self/cgroup") as groups:  # noqa: PTH123
        for line in groups:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers == "":
                yield _ROOT + path, "memory.max"
            elif "memory" in controllers.split(","):
                yield f"{_ROOT}/{controllers}{path}", "memory.limit_in_bytes"


def _write(path: str, value: int) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(str(value))

# SPDX-License-Identifier: MIT
"""Control groups of processes (Documentation/admin-guide/cgroup-v2.rst), in version 2 and in the hierarchies of 1."""

import contextlib
import os

from mlockwipe.linux.read_file import in_proc


def _groups(pid: int) -> dict[str, str]:
    """The group of a process in each hierarchy, by the controllers of that: '' is version 2."""
    with open(f"{pid}/cgroup", encoding="utf-8", errors="surrogateescape", opener=in_proc) as file:
        lines = (line.rstrip("\n").split(":", 2) for line in file)
        return {controllers: path for _, controllers, path in lines}


def _directory(controllers: str, path: str) -> str | None:
    """Where a group is mounted."""
    with open("self/mountinfo", encoding="utf-8", errors="surrogateescape", opener=in_proc) as file:
        for line in file:
            fields, _, rest = line.rstrip("\n").partition(" - ")
            kind, _, options = rest.split(" ", 2)
            root, at = fields.split(" ")[3:5]
            if kind == ("cgroup" if controllers else "cgroup2") and set(controllers.split(",")) <= {
                "",
                *options.split(","),
            }:
                return at + "/" + os.path.relpath(path, root)
    return None


def join_ours(pid: int) -> None:
    """Move a process into the control groups of this one, where that is allowed."""
    with contextlib.suppress(OSError):
        ours, theirs = _groups(os.getpid()), _groups(pid)
        for controllers, path in ours.items():
            if theirs.get(controllers, path) != path and (directory := _directory(controllers, path)) is not None:
                with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(pid))

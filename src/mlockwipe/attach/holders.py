# SPDX-License-Identifier: MIT
"""The processes of this machine that hold locked memory."""

import os
import pwd
from collections.abc import Iterator

from mlockwipe.attach.policy import Process
from mlockwipe.linux import procfs
from mlockwipe.linux.read_file import in_proc, names_in_proc, proc_directory

_UNITS = (".service", ".scope")


def holders(least: int) -> Iterator[tuple[int, procfs.Status, int]]:
    """Every process with at least `least` bytes locked: its pid, its status, and how much it is.

    Left out are those of other users, unless we are root, and those that are traced, keepers among them.
    """
    own = os.geteuid()
    for name in names_in_proc("."):
        if not name.isdigit():
            continue
        try:
            status = procfs.Status(int(name))
            locked = int(status["VmLck"].split()[0]) << 10
            if locked < least or status["TracerPid"] != "0":
                continue
            if own in (0, int(status["Uid"].split()[1])):
                yield int(name), status, locked
        except (KeyError, FileNotFoundError, ProcessLookupError):
            continue  # a kernel thread or a zombie, or ended meanwhile


def describe(pid: int, status: procfs.Status, locked: int) -> Process:
    """A process as a policy sees it. OSError when it is gone or closed to us."""
    uid = int(status["Uid"].split()[1])
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Process(
        os.readlink(f"{pid}/exe", dir_fd=proc_directory()).removesuffix(" (deleted)"), user, _unit(pid), locked
    )


def _unit(pid: int) -> str:
    """The innermost systemd unit of a process, by its cgroup (proc(5)); empty without one."""
    with open(f"{pid}/cgroup", encoding="utf-8", errors="replace", opener=in_proc) as file:
        paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
    for path in paths:
        for part in reversed(path.split("/")):
            if part.endswith(_UNITS):
                return part
    return ""

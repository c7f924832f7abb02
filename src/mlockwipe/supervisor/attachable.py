# SPDX-License-Identifier: MIT
"""Whether a process can be attached to, and why not."""

import os
import pwd

from mlockwipe.linux import procfs
from mlockwipe.requirements import SUPERVISOR, ptrace_scope, supervisor_above, why_no_attaching


class NotAttached(Exception):
    """A process can't be attached to: a sentence without its subject, `is a kernel thread`."""


def check(pid: int, status: procfs.Status) -> None:
    """Find out what speaks against attaching to a process before the kernel is asked. NotAttached."""
    if int(status["Tgid"]) != pid:
        raise NotAttached(f"is a thread of process {status['Tgid']}: name that")
    if pid in ancestors(os.getpid()):
        raise NotAttached("is mlockwipe itself, or has started it")
    if status["State"][0] in "ZX":
        raise NotAttached("has ended, and only waits for its parent")
    if not procfs.have_memory([pid]):
        raise NotAttached("is a kernel thread, which has no memory of its own")
    if status["Name"].startswith("mlockwipe-") and _supervises(pid):
        raise NotAttached("belongs to mlockwipe")
    tracer = int(status["TracerPid"])
    above = tracer if tracer and name_of(tracer) == SUPERVISOR else supervisor_above(pid)
    if above:
        raise NotAttached(f"is under another mlockwipe already, process {above}")
    if tracer:
        raise NotAttached(f"is traced by process {tracer} ({name_of(tracer)}), and a process has one tracer only")


def _supervises(pid: int) -> bool:
    """Whether a process that is named like one of ours does what only those do: any program may take the name."""
    try:
        if any(name == "anon_inode:seccomp notify" for name in procfs.descriptors(pid).values()):
            return True  # of `run`
    except PermissionError:
        return True  # whoever may not look may not attach to it either
    except OSError:
        return False  # gone
    return any(_tracer_of(int(name)) == pid for name in os.listdir("/proc") if name.isdigit())  # `attach`


def _tracer_of(pid: int) -> int:
    try:
        return int(procfs.status_field(pid, "TracerPid"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def why_refused(status: procfs.Status) -> str:
    owner = int(status["Uid"].split()[1])
    if os.geteuid() == 0:
        return "can't be traced: the kernel refuses it even to root here, as in a container without CAP_SYS_PTRACE"
    if owner != os.geteuid():
        return f"belongs to {_user(owner)}: run mlockwipe attach as root"
    if (yama := why_no_attaching(ptrace_scope())) is not None:
        return f"can't be traced: {yama}"
    return "is closed to tracing, by itself (PR_SET_DUMPABLE) or for its privileges: run mlockwipe attach as root"


def ancestors(pid: int) -> list[int]:
    """A process, its parent and so on, as far up as this PID namespace shows."""
    found = []
    while pid > 0:
        found.append(pid)
        try:
            pid = int(procfs.status_field(pid, "PPid"))
        except (FileNotFoundError, ProcessLookupError):
            break
    return found


def name_of(pid: int) -> str:
    try:
        return procfs.status_field(pid, "Name")
    except (FileNotFoundError, ProcessLookupError):
        return "?"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"

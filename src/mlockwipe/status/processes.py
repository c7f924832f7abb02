# SPDX-License-Identifier: MIT
"""Which running processes hold locked memory, and what will wipe it when they release it."""

import pwd
import shlex
from dataclasses import dataclass
from typing import Literal

from mlockwipe.requirements import SUPERVISOR
from mlockwipe.status.machine import Machine, parse_fields

KEEPER = "mlockwipe-keep"  # a keeper shares its program's memory and would count it twice
_BLOCKED = f"{((1 << 64) - 1) & ~(1 << 8 | 1 << 18):016x}"  # all signals but SIGKILL and SIGSTOP
_WORKER_BLOCKED = f"{int(_BLOCKED, 16) & ~(1 << 4):016x}"  # and SIGTRAP: see memory/inject.py

Cover = Literal["supervisor", "init_mlocked_on_free", "init_on_free"]


@dataclass(frozen=True)
class LockedProcess:
    """A process with locked memory, or copies of it."""

    pid: int
    user: str
    command: str  # its program, or its whole command line: whatever a process has chosen
    locked_kib: int
    covered_by: Cover | None


def locked_processes(machine: Machine, kernel: Cover | None, *, with_arguments: bool = False) -> list[LockedProcess]:
    """Every process that this user may see and whose VmLck is not 0, or that a supervisor traces: a daemon may have
    locked and then forked, and has copies that count as not locked. `kernel` is what covers the whole system.

    Raises OSError when /proc itself can't be listed. A process that ends meanwhile, or that the kernel
    hides, is passed over.
    """
    found = []
    for pid in machine.pids():
        try:
            fields = parse_fields(machine.read(f"proc/{pid}/status"))
            locked = _number(fields.get("VmLck", ""))  # kernel threads have no such line
            traced = _is_supervised(machine, fields)
            if not (locked or traced) or (traced and _is_keeper(fields)):
                continue
            found.append(
                LockedProcess(
                    pid=pid,
                    user=_user(_number(fields.get("Uid", ""))),
                    command=_command(machine, pid, fields.get("Name", ""), with_arguments=with_arguments),
                    locked_kib=locked or 0,
                    covered_by="supervisor" if traced else kernel,
                )
            )
        except OSError:  # ended between the listing and the reading (ENOENT, ESRCH), or hidden (EPERM, EACCES)
            continue
    return found


def _number(text: str) -> int | None:
    first = text.split(maxsplit=1)[:1]
    return int(first[0]) if first and first[0].isascii() and first[0].isdigit() else None


def _is_supervised(machine: Machine, fields: dict[str, str]) -> bool:
    """Whether a process is traced by a supervisor. Any program may take that name; one that belongs neither to root
    nor to whom the process belongs could not cover it."""
    tracer = _number(fields.get("TracerPid", ""))
    if not tracer:
        return False
    try:
        its = parse_fields(machine.read(f"proc/{tracer}/status"))
    except OSError:  # it ended, or stands outside our PID namespace
        return False
    return its.get("Name") == SUPERVISOR and _effective_user(its) in (0, _effective_user(fields))


def _is_keeper(fields: dict[str, str]) -> bool:
    """Whether a process that a supervisor traces is one of its keepers, and no program that has taken the name: those
    are its own children, and block every signal, which the C library lets nobody do."""
    return (
        fields.get("Name") == KEEPER
        and fields.get("PPid", fields["TracerPid"]) == fields["TracerPid"]
        and fields.get("SigBlk", _BLOCKED) in (_BLOCKED, _WORKER_BLOCKED)
    )


def _effective_user(fields: dict[str, str]) -> int | None:
    return _number(" ".join(fields.get("Uid", "").split()[1:]))


def _user(uid: int | None) -> str:
    if uid is None:
        return "?"
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _command(machine: Machine, pid: int, name: str, *, with_arguments: bool) -> str:
    if not with_arguments:
        return machine.executable(pid) or name
    arguments = machine.read(f"proc/{pid}/cmdline").rstrip("\0").split("\0")
    return shlex.join(arguments) if arguments != [""] else f"[{name}]"

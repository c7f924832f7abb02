# SPDX-License-Identifier: MIT
"""Which running processes hold locked memory, and what will wipe it when they release it."""

import pwd
import shlex
from dataclasses import dataclass
from typing import Literal

from mlockwipe.status.machine import Machine, parse_fields

SUPERVISOR = "mlockwipe-super"  # the supervisor's name in /proc/PID/comm, which holds 15 characters
KEEPER = "mlockwipe-keep"  # a keeper shares its program's memory and would count it twice

Cover = Literal["supervisor", "init_mlocked_on_free", "init_on_free"]


@dataclass(frozen=True)
class LockedProcess:
    """A process with locked memory, or copies of it."""

    pid: int
    user: str
    command: str  # printable characters only: a process chooses its own name
    locked_kib: int
    covered_by: Cover | None


def locked_processes(machine: Machine, kernel: Cover | None) -> list[LockedProcess]:
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
            traced = _is_supervisor(machine, _number(fields.get("TracerPid", "")))
            if not (locked or traced) or fields.get("Name", "").startswith(KEEPER):
                continue
            found.append(
                LockedProcess(
                    pid=pid,
                    user=_user(_number(fields.get("Uid", ""))),
                    command=_command(machine, pid, fields.get("Name", "")),
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


def _is_supervisor(machine: Machine, tracer: int | None) -> bool:
    if not tracer:
        return False
    try:
        return machine.read(f"proc/{tracer}/comm") == SUPERVISOR
    except OSError:  # it ended, or stands outside our PID namespace
        return False


def _user(uid: int | None) -> str:
    if uid is None:
        return "?"
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _command(machine: Machine, pid: int, name: str) -> str:
    arguments = machine.read(f"proc/{pid}/cmdline").rstrip("\0").split("\0")
    text = shlex.join(arguments) if arguments != [""] else f"[{name}]"
    return "".join(character if character.isprintable() else "?" for character in text)

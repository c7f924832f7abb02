# SPDX-License-Identifier: MIT
"""Looks over the supervisor's shoulder: what locked memory holds at the moment when it is unlocked or released.

Each finding is a line of a file at once, before the program goes on: so nothing is lost with the supervisor, and who
reads the file when a call has returned has all that was found by then.
"""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from time import time
from traceback import format_exc
from typing import Any, TypeVar, cast

from mlockwipe.audit.content import Content, content
from mlockwipe.audit.finding import LOST_BY_FORK, NEVER_RELEASED, REFUSED, RELEASED, UNLOCKED, Finding
from mlockwipe.audit.ledger import Ledger, Lock, Part
from mlockwipe.audit.stacks import Stacks
from mlockwipe.linux import procfs
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.calls import Call, page_up, span
from mlockwipe.memory.ranges import Range
from mlockwipe.memory.sensitive import Change
from mlockwipe.memory.wipe import sensitive_pages
from mlockwipe.tracing.task import Task

Hook = TypeVar("Hook", bound=Callable[..., None])

_UNLOCKS = ("munlock", "munlockall")
_REFUSALS = (errno.EPERM, errno.ENOMEM, errno.EAGAIN)


def _never_in_the_way(method: Hook) -> Hook:
    """The program's work comes first: a defect here must not end its supervisor, and the program with it."""

    @wraps(method)
    def guarded(self: "Auditor", *arguments: Any) -> None:
        try:
            method(self, *arguments)
        except Exception:
            for line in ("this is a defect of mlockwipe audit, which may miss things:", *format_exc().splitlines()):
                self._say(f"audit {line}", line)

    return cast(Hook, guarded)


@dataclass(frozen=True)
class _UnderWay:
    """A call between its entry and its return, and what it leaves if it succeeds."""

    call: Call
    found: list[Finding]


class Auditor:
    """An observer. `say` tells the user something, once for each key. ImportError without libdw."""

    watches_locks = True

    def __init__(self, path: str, say: Callable[[str, str], None]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._say = say
        self._stacks = Stacks(say)
        self._ledgers: dict[AddressSpace, Ledger] = {}
        self._under_way: dict[int, _UnderWay] = {}

    @_never_in_the_way
    def not_protected(self, program: str) -> None:
        """A process of this program has locked memory and can't be looked at."""
        self._write({"not audited": program})

    @_never_in_the_way
    def entered(self, task: Task, call: Call, given_up: list[Range]) -> None:
        """A call is about to be made, and nothing is wiped for it yet."""
        ledger = self._ledgers.get(task.space)
        if ledger is None or task.space.held is None:
            return
        found: list[Finding] = []
        for start, end in given_up:
            for part in ledger.within(start, end):
                held = self._content(task.space, part)
                if part[2].inherited:
                    kind = LOST_BY_FORK if self._is_lost(task.space, ledger, part, held) else None
                else:
                    kind = None if held.clear else UNLOCKED if call.name in _UNLOCKS else RELEASED
                if kind is not None:
                    found.append(_finding(kind, call.name, part, held, ledger, task.tid))
        self._under_way[task.tid] = _UnderWay(call, found)

    @_never_in_the_way
    def returned(self, task: Task, call: Call, result: int, entry: Change, change: Change) -> None:
        """The call has returned, its task is stopped, and the address space knows what came of it."""
        under_way = self._under_way.pop(task.tid, None)
        found = under_way.found if under_way is not None and under_way.call is call else []
        failed = not call.succeeds(result)
        if found and not failed:
            stack = self._stacks.of(task.tgid, task.tid)
            for finding in found:
                self._tell(replace(finding, released=stack))
        elif found and call.name == "munlock":  # it fails at a hole, and has unlocked what lies before
            self._unlocked_in_part(task, call, found)
        if call.locks:
            if failed:
                self._refused(task, call, -result)
            else:
                self._locked(task, call, result, change)
        elif not failed and task.space in self._ledgers:
            ledger = self._ledgers[task.space]
            ledger.change([*entry.removed, *change.removed], change.moved)
            for place in (*entry.added, *change.added):
                self._locked_as_all(task, place)

    @_never_in_the_way
    def forked(self, parent: AddressSpace, child: AddressSpace, process: int) -> None:
        """A child has got copies of all that its parent had locked."""
        if parent in self._ledgers:
            self._ledgers[child] = self._ledgers[parent].of_child(process, parent)

    @_never_in_the_way
    def gone(self, process: int) -> None:
        """A process has ended, or executes another program."""
        self._stacks.forget(process)

    @_never_in_the_way
    def ended(self, space: AddressSpace, cause: str) -> None:
        """No task uses an address space any more, and it is not wiped yet."""
        ledger = self._ledgers.pop(space, None)
        if ledger is None or space.held is None:
            return
        for part in ledger:
            if part[2].inherited and cause == "exec":
                continue  # a child that executes something has made its copies for that only
            held = self._content(space, part)
            if part[2].inherited:
                kind = LOST_BY_FORK if self._is_lost(space, ledger, part, held) else None
            else:
                kind = RELEASED if not held.clear else NEVER_RELEASED if cause == "exit" else None
            if kind is not None:
                self._tell(_finding(kind, cause, part, held, ledger, ledger.process))

    def _content(self, space: AddressSpace, part: Part) -> Content:
        start, end, _ = part
        assert space.held is not None
        try:
            return content(space.held.files, space.sensitive.ranges.within(start, end))
        except OSError as error:
            self._say("content", f"locked memory can't be read: {error}")
            return Content(0, 0, 0.0)

    def _is_lost(self, space: AddressSpace, ledger: Ledger, part: Part, held: Content) -> bool:
        """Whether a child leaves something in its copies, or has lived on as a daemon, the only one to use them."""
        if not held.clear:
            return True
        if any(ancestor in self._ledgers for ancestor in ledger.ancestors):
            return False
        # It has none of what MADV_DONTFORK or MADV_WIPEONFORK has kept from it.
        own = space.sensitive.ranges.within(part[0] & -PAGE_SIZE, page_up(part[1]))
        return space.held is not None and any(True for _ in sensitive_pages(space.held.files, own))

    def _locked(self, task: Task, call: Call, result: int, change: Change) -> None:
        space = task.space
        if space not in self._ledgers:
            self._ledgers[space] = Ledger(task.tgid, procfs.executable(task.tgid))
            self._write({"locks": self._ledgers[space].program})
        ledger = self._ledgers[space]
        lock = Lock(call.name, task.tgid, task.tid, time(), self._stacks.of(task.tgid, task.tid))
        if call.name == "mlockall":
            for start, end in change.added:
                for low, high in _without(start, end, ledger):
                    ledger.add(low, high, lock)
        elif call.name == "mmap":
            ledger.add(*span(result, call.arguments[1]), lock)
        else:
            ledger.add(call.arguments[0], call.arguments[0] + call.arguments[1], lock)

    def _locked_as_all(self, task: Task, place: Range) -> None:
        """What is mapped under MCL_FUTURE is locked, also where something was unlocked before."""
        gaps = _without(*place, self._ledgers[task.space])
        if gaps:
            lock = Lock("mmap", task.tgid, task.tid, time(), self._stacks.of(task.tgid, task.tid))
            for start, end in gaps:
                self._ledgers[task.space].add(start, end, lock)

    def _unlocked_in_part(self, task: Task, call: Call, found: list[Finding]) -> None:
        stack = self._stacks.of(task.tgid, task.tid)
        for finding in found:
            if not task.space.sensitive.ranges.overlaps(finding.address, finding.address + finding.length):
                self._tell(replace(finding, released=stack))
        ledger = self._ledgers[task.space]
        for start, end, _ in ledger.within(*span(call.arguments[0], call.arguments[1])):
            if not task.space.sensitive.ranges.overlaps(start, end):
                ledger.remove(start, end)

    def _refused(self, task: Task, call: Call, number: int) -> None:
        if number not in _REFUSALS or (call.name in ("mlock", "mlock2") and not _is_mapped(task, call)):
            return  # a mistake in the arguments
        if call.name in ("mlock", "mlock2") and task.space.sensitive.ranges.overlaps(*span(*call.arguments[:2])):
            self._locked(task, call, 0, Change())  # as of PROT_NONE memory, which the kernel locks and says ENOMEM
            return
        start = 0 if call.name in ("mlockall", "mmap") else call.arguments[0]
        length = 0 if call.name == "mlockall" else call.arguments[1]
        stack = self._stacks.of(task.tgid, task.tid)
        lock = Lock(call.name, task.tgid, task.tid, time(), stack)
        reason = f"{errno.errorcode[number]}, RLIMIT_MEMLOCK is {_limit(task.tgid)}"
        ledger = Ledger(task.tgid, procfs.executable(task.tgid))
        finding = _finding(REFUSED, call.name, (start, start + length, lock), Content(0, 0, 0.0), ledger, task.tid)
        self._tell(replace(finding, reason=reason))

    def _tell(self, finding: Finding) -> None:
        self._write(finding.as_json())

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            if os.write(self._file, data) == len(data):
                return
            os.write(self._file, b"\n")
        except OSError as error:
            self._say("file", f"what the audit finds can't be written down: {error.strerror}")


def _finding(kind: str, cause: str, part: Part, held: Content, ledger: Ledger, thread: int) -> Finding:
    start, end, lock = part
    return Finding(
        kind,
        cause,
        start,
        end - start,
        held.pages,
        held.bytes,
        held.entropy,
        ledger.program,
        ledger.process,
        thread,
        time(),
        lock.call,
        lock.process,
        lock.stack,
        (),
    )


def _without(start: int, end: int, ledger: Ledger) -> list[Range]:
    """What of [start, end) the ledger does not have as locked by this process itself."""
    gaps = []
    for low, high, lock in ledger.within(start, end):
        if not lock.inherited:
            if start < low:
                gaps.append((start, low))
            start = high
    return [*gaps, (start, end)] if start < end else gaps


def _is_mapped(task: Task, call: Call) -> bool:
    """Whether there is memory everywhere that a call wants locked, so that it failed for another reason."""
    start, end = span(call.arguments[0], call.arguments[1])
    for low, high in task.space.state.mappings.mapped(start, end):
        if low > start:
            return False
        start = high
    return start >= end


def _limit(process: int) -> str:
    try:
        with open(f"/proc/{process}/limits", encoding="ascii") as limits:
            soft = next(line.split()[3] for line in limits if line.startswith("Max locked memory"))
    except OSError:
        return "not known"
    return soft if soft == "unlimited" else f"{soft} bytes"

# SPDX-License-Identifier: MIT
"""The verb: attach, stay until the programs are gone or somebody asks to end, and leave them as they were."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mlockwipe.attach.holders import describe, holders
from mlockwipe.attach.policy import Policy
from mlockwipe.linux import prctl, procfs
from mlockwipe.supervisor.attachable import NotAttached, ancestors
from mlockwipe.supervisor.attached import Attached
from mlockwipe.supervisor.front import check_machine, check_report
from mlockwipe.supervisor.report import Report

_FAILED = 125


@dataclass
class AttachOptions:
    """What `mlockwipe attach` was asked for. Without `pids` the machine is watched.

    `least`: bytes that a process must have locked to be found. `verbosity`: -1 says why nothing could be attached to,
    0 what is covered and what can't be, 1 every release too.
    """

    pids: list[int]
    least: int = 4096
    policy: str | None = None
    all_memory: bool = False
    report: str | None = None
    verbosity: int = 0


def attach(options: AttachOptions) -> int:
    """The exit status: 0, or 125 when none of the processes could be attached to. Refused before anything is done."""
    check_machine()
    report_path = check_report(options.report)
    policy = Policy.load(options.policy) if options.policy is not None else Policy([], [])
    report = Report(["attach", *(map(str, options.pids) if options.pids else ["--all"])], report_path)

    def say(verbosity: int, text: str) -> None:
        if verbosity <= options.verbosity:
            _write(text)

    prctl.set_name(b"mlockwipe-super")
    prctl.set_undumpable()
    attached = Attached(report, say, all_memory=options.all_memory)
    refused = []
    for pid in options.pids:
        try:
            attached.attach(pid)
        except NotAttached as error:
            refused.append(f"process {pid} {error}")
            report.counts.unprotected[str(pid), str(error)] += 1
            say(0, refused[-1])
    watch = None if options.pids else _Watch(attached, options.least, policy, say).look
    ended = attached.run(watch)
    if not ended:
        say(0, "detached: the programs go on without cover")
    say(1, report.summary())
    try:
        report.write(final=True)
    except OSError as error:
        _write(f"the report can't be written: {error.strerror}")
    if ended and report.counts.attached == 0:
        for text in refused if options.verbosity < 0 else []:
            _write(text)
        return _FAILED
    return 0


class _Watch:
    """The look at the machine, every second."""

    def __init__(self, attached: Attached, least: int, policy: Policy, say: Callable[[int, str], None]) -> None:
        self._attached = attached
        self._least = least
        self._policy = policy
        self._say = say
        self._looked_at: dict[int, str] = {}  # pids that were refused or excluded, with their start times
        self._never = set(ancestors(os.getpid()))

    def look(self) -> None:
        seen = {}
        for pid, status, locked in holders(self._least):
            if pid in self._never:
                continue
            try:
                started = procfs.stat_fields(pid)[19]
                if self._looked_at.get(pid) == started:
                    seen[pid] = started
                    continue
                if not self._policy.allows(describe(pid, status, locked)):
                    continue  # it may exec, or lock less
                self._attached.attach(pid)
            except NotAttached as error:
                seen[pid] = started
                self._say(0, f"process {pid} {error}")
            except OSError:
                continue  # gone
        self._looked_at = seen


def _write(text: str) -> None:
    with suppress(OSError):  # nobody listens
        os.write(2, f"mlockwipe: {text}\n".encode(errors="surrogateescape"))

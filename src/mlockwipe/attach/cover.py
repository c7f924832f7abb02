# SPDX-License-Identifier: MIT
"""Attach to programs that run, stay until they are gone or somebody asks to end, and leave them as they were."""

from collections.abc import Callable
from dataclasses import dataclass

from mlockwipe.attach.policy import Policy
from mlockwipe.attach.watch import Watch
from mlockwipe.linux import prctl
from mlockwipe.linux.read_file import proc_directory
from mlockwipe.messages import tell
from mlockwipe.report_file import ReportFile
from mlockwipe.requirements import check_machine
from mlockwipe.supervisor.attachable import NotAttached
from mlockwipe.supervisor.attached import Attached
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


def cover(options: AttachOptions) -> int:
    """The exit status: 0, or 125 when none of the processes could be attached to. Refused before anything is done."""
    check_machine()
    report_file = None if options.report is None else ReportFile(options.report, by_supervisor=True)
    policy = Policy.load(options.policy) if options.policy is not None else Policy([], [])
    report = Report(["attach", *(map(str, options.pids) if options.pids else ["--all"])], report_file)

    def say(verbosity: int, text: str) -> None:
        if verbosity <= options.verbosity:
            tell(text)

    prctl.set_undumpable()
    proc_directory()  # now, before anybody can mount anything over it
    refused: list[str] = []
    ended = _cover_named(options, report, say, refused) if options.pids else _watch(options, policy, report, say)
    if not ended:
        say(0, "detached: the programs go on without cover")
    say(1, report.summary())
    try:
        report.write(final=True)
    except OSError as error:
        tell(f"the report can't be written: {error.strerror}")
    if ended and report.counts.attached == 0:
        for text in refused if options.verbosity < 0 else []:
            tell(text)
        return _FAILED
    return 0


def _cover_named(options: AttachOptions, report: Report, say: Callable[[int, str], None], refused: list[str]) -> bool:
    """Whether all have ended. `refused`: gets why one could not be attached to."""
    prctl.set_name(b"mlockwipe-super")
    attached = Attached(report, say, all_memory=options.all_memory)
    for pid in options.pids:
        try:
            attached.attach(pid)
        except NotAttached as error:
            refused.append(f"process {pid} {error}")
            report.counts.not_protected(str(pid), str(error))
            say(0, refused[-1])
    return attached.run()


def _watch(options: AttachOptions, policy: Policy, report: Report, say: Callable[[int, str], None]) -> bool:
    prctl.set_name(b"mlockwipe-watch")
    Watch(report, options.least, policy, say, verbosity=options.verbosity, all_memory=options.all_memory).run()
    return False

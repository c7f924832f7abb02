# SPDX-License-Identifier: MIT
"""The supervisor of programs that were handed over with their listener, outside of whatever is killed with them.

It is no parent of theirs, and no front stands for them: they keep their place under the shell, the service manager or
the container runtime. When all of them are killed at once, their keepers too, each keeper halts in its exit stop, and
the memory is wiped before that goes on.
"""

import os
import select
import signal

from mlockwipe.linux import limits, prctl, procfs, seccomp, signalfd, wait
from mlockwipe.linux.wait import End
from mlockwipe.memory.journal import Journal, SaveArea
from mlockwipe.messages import say
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.custody import Custody, Entrusted
from mlockwipe.supervisor.filtered import Filtered
from mlockwipe.supervisor.handover import Request
from mlockwipe.supervisor.once import Once
from mlockwipe.supervisor.recovery import filtered, recover
from mlockwipe.supervisor.report import Report
from mlockwipe.tracing.observer import Unobserved
from mlockwipe.tracing.trouble import reason

_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def guard(request: Request, inherited_filters: int, report: Report, verbosity: int) -> None:
    """Run a supervisor until the last program is gone, and take over if it is killed. For a process of its own.

    It is asked to end in vain: programs without their supervisor would fail at the next lock.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    journal, save_area = Journal(), SaveArea()
    limits.raise_limits(os.getpid())  # each address space takes four descriptors
    prctl.set_undumpable()
    ours, supervisors = Channel.pair()
    supervisor = os.fork()
    if supervisor == 0:
        ours.close()
        prctl.set_name(b"mlockwipe-super")
        custody = Custody(supervisors)
        Outside(request, inherited_filters, custody, journal, save_area, report, verbosity).run()
        os._exit(0)
    supervisors.close()
    prctl.set_name(b"mlockwipe-guard")
    left = Entrusted()
    left.take_all(ours)
    _, status, used = os.wait4(supervisor, 0)
    if status == 0:
        return
    prctl.set_name(b"mlockwipe-super")
    why = limits.why_killed(used.ru_utime + used.ru_stime)
    _say(request, f"the supervisor was killed{why}; its guardian wipes what it left and takes its place")
    save_area.clear()
    try:
        report.counts.wiped["death of the supervisor"] += recover(journal, left.files, filtered)
    except Exception as error:  # those that have not locked anything yet go on all the same
        _say(request, f"what it left could not be wiped: {reason(error)}")
    journal.clear()
    Outside(request, inherited_filters, Custody(None), journal, save_area, report, verbosity).run()


class Outside:
    """The supervisor of one listener. `verbosity` as in Options."""

    def __init__(
        self,
        request: Request,
        inherited_filters: int,
        custody: Custody,
        journal: Journal,
        save_area: SaveArea,
        report: Report,
        verbosity: int,
    ) -> None:
        self._request = request
        self._report = report
        self._verbosity = verbosity
        self._once = Once()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        self._signals = signalfd.open_signalfd([signal.SIGCHLD])
        wait.bound_waits()
        seccomp.wake_synchronously(request.listener)
        self._filtered = Filtered(
            request.listener,
            self,
            custody,
            Unobserved(),
            report.counts,
            journal,
            save_area,
            inherited_filters=inherited_filters,
            strict=request.strict,
            unmap=request.unmap,
        )

    def run(self) -> None:
        """Until no task is left that has the filter."""
        poll = select.epoll()
        poll.register(self._signals, select.EPOLLIN)
        poll.register(self._request.listener, select.EPOLLIN)
        listening = True
        while self._filtered.handle_events(self._reap) or listening:
            for fd, events in poll.poll(self._filtered.patience):
                if fd == self._signals:
                    signalfd.read_signals(fd)
                elif events & select.EPOLLIN:
                    self._filtered.handle_notification()
                else:
                    poll.unregister(fd)
                    listening = False
        poll.close()
        self._end()

    def _reap(self, end: End) -> None:
        if end.tid == self._request.pid:
            self._report.status = {"exit" if end.exited else "signal": end.status}
        wait.reap(end.tid)

    def _end(self) -> None:
        counts = self._report.counts
        if self._verbosity > 0 or self._request.verbose or counts.wiped or counts.unprotected:
            _say(self._request, f"has ended; {self._report.summary()}")
        try:
            self._report.write(final=True)
        except OSError as error:
            _say(self._request, f"the report can't be written: {error.strerror}")

    # -- as the owner of what is traced -------------------------------------------------------------------------

    def say(self, key: str, text: str) -> None:
        if self._verbosity >= 0 and (text := self._once.of(key, text)):
            _say(self._request, text)

    def note_death_signal(self, tgid: int, number: int) -> None:
        """Its parent is the one that it means, and the kernel sees to it."""

    def stopped(self, tid: int, by: int | None) -> None:
        """Whoever waits for it is its parent, and hears of it from the kernel."""


def _say(request: Request, text: str) -> None:
    say(f"{request.name}: {text}")


def filters_before(pid: int) -> int:
    """How many seccomp filters a task had before the one whose listener was handed over."""
    return max(0, int(procfs.status_field(pid, "Seccomp_filters")) - 1)

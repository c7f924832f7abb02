# SPDX-License-Identifier: MIT
"""The supervisor of `run`: its loop, the command that it was started for, and its parents.

It is one thread. Every event is handled to its end before the next is looked at, so there is one order of things:
the tables of what is traced change only between events.
"""

import contextlib
import os
import select
import signal

from mlockwipe.linux import limits, prctl, procfs, seccomp, signalfd, signals, wait
from mlockwipe.linux.wait import End
from mlockwipe.memory.journal import Journal, SaveArea
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.custody import Custody
from mlockwipe.supervisor.filtered import Filtered
from mlockwipe.supervisor.once import Once
from mlockwipe.supervisor.options import Options
from mlockwipe.supervisor.report import Report
from mlockwipe.tracing.observer import Unobserved

_ENDING = frozenset((signals.SIGTERM, signals.SIGINT, signals.SIGHUP, signals.SIGQUIT))
# To be blocked by whoever runs a supervisor. SIGALRM is the tick of a burst.
SIGNALS = signals.ALL - {signals.SIGKILL, signals.SIGALRM, *signals.STOPPING}


class Supervisor:
    """Of a command that was started, and of its descendants."""

    def __init__(
        self,
        options: Options,
        listener: int,
        front: Channel,
        guardian: Channel | None,
        journal: Journal,
        save_area: SaveArea,
        report: Report,
        *,
        program: int,
        front_pid: int,
    ) -> None:
        self._listener = listener
        self._front: Channel | None = front
        self._journal = journal
        self._report = report
        self._program = program
        self._program_ended = False
        self._program_stopped = False
        self._death_signal = 0  # which the program wants when its parent dies: that is not this process to it
        self._verbose = options.verbosity > 0
        self._front_pid = front_pid
        self._once = Once()
        self._signals = signalfd.open_signalfd(SIGNALS)
        wait.bound_waits()
        limits.raise_limits(os.getpid())  # each address space takes four descriptors
        prctl.set_undumpable()
        seccomp.wake_synchronously(listener)
        observer = Unobserved() if options.watch is None else options.watch(self.say)
        self._filtered = Filtered(
            listener,
            self,
            Custody(guardian),
            observer,
            report.counts,
            journal,
            save_area,
            inherited_filters=int(procfs.status_field(os.getpid(), "Seccomp_filters")),
            strict=options.strict,
            unmap=options.unmap,
        )
        self._tracees = self._filtered.tracees

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the last descendant is gone."""
        poll = select.epoll()
        poll.register(self._signals, select.EPOLLIN)
        poll.register(self._listener, select.EPOLLIN)
        assert self._front is not None
        front = self._front.fileno()
        poll.register(front, select.EPOLLIN)
        while self._handle_children():
            for fd, events in poll.poll(self._filtered.patience):
                if fd == self._signals:
                    self._forward_signals()
                elif fd == self._listener:
                    if events & select.EPOLLIN:
                        self._filtered.handle_notification()
                    else:
                        poll.unregister(fd)  # no task is left that has the filter
                elif fd == front and self._front_is_gone():
                    poll.unregister(fd)
        poll.close()
        self._write_report(final=True)

    def _handle_children(self) -> bool:
        """Every event of our children: False when there is none of them left."""
        any_left = self._filtered.handle_events(self._reap)
        if any_left and self._program_stopped:
            self._look_for_continued()
        return any_left

    def _reap(self, end: End) -> None:
        if end.tid == self._program:
            self._journal.note_end(end.status, end.code)
            self._forward_signals()  # its own, before nobody knows any more whose they are
        wait.reap(end.tid)
        if end.tid == self._program:
            self.program_has_ended(end)

    def _look_for_continued(self) -> None:
        """The program was stopped: if it is not traced, has it been continued?"""
        if self._program not in self._tracees.tasks and wait.was_continued(self._program):
            self.stopped(self._program, None)

    # -- the command and its front ------------------------------------------------------------------------------

    def _forward_signals(self) -> None:
        for info in signalfd.read_signals(self._signals):
            if info.code == signalfd.SI_KERNEL or info.sender == os.getpid():
                continue  # from the terminal, before we left the program's group: the program has it too; or SIGPIPE
            if info.signal != signal.SIGCHLD and not self._program_ended:
                to = _parent(self._front_pid) if _is_from_below(info) else self._program
                with contextlib.suppress(PermissionError, ProcessLookupError):
                    if to:
                        os.kill(to, info.signal)

    def _front_is_gone(self) -> bool:
        assert self._front is not None
        message = self._front.receive()
        if message is not None:
            # `orphaned`, or `apart` for a supervisor that was killed before it took that
            if message[0] == "orphaned" and not self._program_ended:
                with contextlib.suppress(OSError, OverflowError):
                    os.kill(self._program, self._death_signal)
            return False
        self._front = None
        if not self._program_ended:
            os.kill(self._program, signal.SIGKILL)  # whoever killed the front meant the program
        return True

    def program_has_ended(self, end: End) -> None:
        """The command is dead and reaped: tell the front, which may go."""
        if self._program_ended:
            return
        if self._program_stopped:
            self.stopped(self._program, None)  # it could not hear of the end
        self._program_ended = True
        self._report.status = {"exit" if end.exited else "signal": end.status}
        if self._front_pid == 1:
            # process 1 takes everything with it: have it all dead and wiped before it goes
            self._end_all()
        last = not wait.have_children()
        if self._verbose:
            self.say("summary", self._report.summary() + ("" if last else ", until now: descendants go on"))
        self._write_report(final=last)
        if self._front is not None:
            if last:
                self._front.send("ended")
            self._front.send("exited" if end.exited else "killed", end.status)

    def _end_all(self) -> None:
        for tid in self._tracees.tasks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(tid, signal.SIGKILL)
        self._kill_children()
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        while self._handle_children():
            patience = self._filtered.patience
            poll.poll(None if patience is None else patience * 1000)
            signalfd.read_signals(self._signals)
            self._kill_children()

    def _kill_children(self) -> None:
        for child in procfs.children(os.getpid()):
            if child not in self._tracees.keepers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def _write_report(self, *, final: bool) -> None:
        try:
            self._report.write(final=final)
        except OSError as error:
            self.say("report", f"the report can't be written: {error.strerror}")

    # -- what the programs concern of it ------------------------------------------------------------------------

    def say(self, key: str, text: str) -> None:
        if self._front is not None and (text := self._once.of(key, text)):
            self._front.offer("say", text)  # it may be stopped, as the program is: what is supervised goes on

    def note_death_signal(self, tgid: int, number: int) -> None:
        if tgid == self._program:
            self._death_signal = number

    def stopped(self, tid: int, by: int | None) -> None:
        """The program was stopped by a signal, or continued: so is the front, which the shell looks at.

        By signals from here, which arrive in their order; a front that stopped itself could do so too late.
        """
        if tid != self._program:
            return
        again = self._program_stopped and by is not None  # a stop soon after a stop hides the news between
        self._program_stopped = by is not None
        if self._front is None:
            return
        if again or by is None:
            os.kill(self._front_pid, signal.SIGCONT)
        if by is not None:
            os.kill(self._front_pid, by if by in signals.STOPPING else signal.SIGSTOP)


def _parent(pid: int) -> int:
    """The pid of a process's parent; 0 when the process is gone, or the parent is outside of our PID namespace."""
    try:
        return int(procfs.stat_fields(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _is_from_below(info: signalfd.SignalInfo) -> bool:
    """Whether the program or a descendant has sent a signal: to its parent, in whose place we are.

    Who is gone, as kill(1) is at once, can't be asked. A program tells its parent something; others want to end it.
    """
    pid = info.sender
    if pid and not procfs.tasks(pid):
        return info.signal not in _ENDING
    while pid > 1 and pid != os.getpid():
        pid = _parent(pid)
    return pid == os.getpid()

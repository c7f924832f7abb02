# SPDX-License-Identifier: MIT
"""The supervisor process of `attach --all` for one program and its descendants, seen from both sides.

Whatever such a program does to its supervisor, hang it, crash it or have it take all memory, concerns that program.
What both sides send never waits for the other.
"""

import json
import os
from contextlib import suppress
from time import monotonic

from mlockwipe.linux import prctl, procfs
from mlockwipe.supervisor.attachable import NotAttached
from mlockwipe.supervisor.attached import Attached
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.report import Report
from mlockwipe.tracing.counts import Counts
from mlockwipe.tracing.trouble import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[str], None]

_AT_ONCE = 64  # messages
_MOST_PROGRAMS = 1000  # that are told apart in the report
_OTHERS = "(others)"
_SILENCE = 30.0  # seconds without an answer, and without any work

LEFT = 3  # the exit status when it was asked to leave


class Covering:
    """The watcher's side. `trees`: the processes that it was told to attach to, with their start times.

    `owner`: the user whose programs it covers. `families`: of its programs. `is_silent`: it has not answered lately.
    `is_over`: no program is left that it covers, nor comes.
    """

    def __init__(self, report: Report, verbosity: int, *, all_memory: bool, owner: int, others: list[int]) -> None:
        """Start the process. OSError when there can't be one. `others`: descriptors that are not its own."""
        self.owner = owner
        self.families: set[object] = set()
        self.trees: dict[int, str] = {}
        self.is_silent = self.is_over = self.is_closed = False
        self.fate = ""  # why it was killed
        self._orders = 0
        self._report = report
        self._asked = 0.0  # when, 0 when it has answered
        self._worked = ""  # how much, when it was asked
        self.channel, theirs = Channel.pair()
        for end in (self.channel, theirs):
            os.set_blocking(end.fileno(), False)
        try:
            self.pid = os.fork()
        except OSError:
            self.close()
            theirs.close()
            raise
        if self.pid == 0:
            status = 1
            try:
                self.channel.close()
                for fd in others:
                    os.close(fd)
                status = _supervise(theirs, verbosity, all_memory)
            except Exception as error:
                theirs.send("say", reason(error))
            finally:
                os._exit(status)
        theirs.close()

    @property
    def program(self) -> int:
        """One of its programs, to name it by."""
        return next(iter(self.trees), 0)

    def attach(self, pid: int, started: str, family: object) -> bool:
        """Have it attach to one more process. False when it can't be told now."""
        if self.is_over or self.is_closed or not self._send("attach", pid):
            return False
        self._orders += 1
        self.trees[pid] = started
        self.families.add(family)
        return True

    def leave(self) -> None:
        """Let it end, and leave its programs as they are."""
        self._send("leave")

    def _send(self, word: str, *values: object) -> bool:
        try:
            return self.channel.send(word, *values)
        except OSError:  # its buffer is full: it hangs
            return False

    def is_stuck(self) -> bool:
        """Ask whether it is there: True when it has not answered for long, and has done nothing meanwhile."""
        now = monotonic()
        if not self._asked:
            self._asked, self._worked = now, _work_of(self.pid)
            self._send("ask")
            return False
        if (worked := _work_of(self.pid)) != self._worked:  # a wipe may take its time
            self._asked, self._worked = now, worked
        self.is_silent = now - self._asked > _SILENCE / 3
        return now - self._asked > _SILENCE

    def hear(self, tell: "Tell") -> None:
        """Take what it says, and add what it has counted to the report."""
        for _ in range(_AT_ONCE):
            try:
                message = self.channel.receive()
            except BlockingIOError:
                return
            if message is None:
                self.close()
                return
            self._on_message(message[0], message[1], tell)

    def _on_message(self, word: str, rest: str, tell: "Tell") -> None:
        counts = self._report.counts
        match word:
            case "say":
                tell(rest)
            case "answer":
                self._asked, self.is_silent = 0.0, False
            case "done" if int(rest) == self._orders:  # else more are on their way
                self.is_over = True
                self.leave()
            case "attached":
                counts.attached += int(rest)
            case "wiped":
                cause, _, pages = rest.rpartition(" ")
                counts.wiped[cause] += int(pages)
            case "unprotected":
                program, why, times = json.loads(rest)
                if (program, why) not in counts.unprotected and len(counts.unprotected) >= _MOST_PROGRAMS:
                    program = _OTHERS
                counts.unprotected[program, why] += times

    def close(self) -> None:
        self.is_closed = True
        self.channel.close()

    def how_it_ended(self) -> int | None:
        """The exit status, negative for a signal; None as long as it is there."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def _work_of(pid: int) -> str:
    """The time that a process has used: user and system, in stat."""
    with suppress(OSError):
        return " ".join(procfs.stat_fields(pid)[11:13])
    return ""


def _supervise(channel: Channel, verbosity: int, all_memory: bool) -> int:
    """In the child: the exit status."""
    prctl.set_name(b"mlockwipe-super")
    os.setpgid(0, 0)  # what the terminal sends is for the watcher
    orders = _Orders(channel, verbosity)
    orders.attached = Attached(orders.report, orders.say, all_memory=all_memory)
    orders.attached.run(orders)
    orders.flush()
    return LEFT


class _Orders:
    """The child's side."""

    attached: Attached

    def __init__(self, channel: Channel, verbosity: int) -> None:
        self.report = Report([], None)
        self._channel = channel
        self._verbosity = verbosity
        self._taken = 0
        self._done = 0  # after so many the watcher was told that nothing is left

    def fileno(self) -> int:
        return self._channel.fileno()

    def say(self, verbosity: int, text: str) -> None:
        if verbosity <= self._verbosity:
            self._send("say", text)

    def _send(self, word: str, *values: object) -> bool:
        try:
            return self._channel.send(word, *values)
        except OSError:
            return False  # the watcher does not read: it is stopped, or has too much to do

    def take(self) -> bool:
        """Do what the watcher asks for. False: leave the programs."""
        while True:
            try:
                message = self._channel.receive()
            except BlockingIOError:
                return True
            if message is None or message[0] == "leave":
                return False
            if message[0] == "attach":
                self._taken += 1
                self._attach(int(message[1]))
            else:
                self._send("answer")

    def _attach(self, pid: int) -> None:
        try:
            self.attached.attach(pid)
        except NotAttached as error:
            self.say(0, f"process {pid} {error}")
        except Exception as error:
            self.attached.not_protected(pid, reason(error))

    def none_left(self) -> None:
        """No program is left. The watcher may have sent another one meanwhile; if not, it answers by `leave`."""
        if self._done != self._taken and self._send("done", self._taken):
            self._done = self._taken

    def flush(self) -> None:
        """Tell the watcher what was counted since."""
        counts = self.report.counts
        if not (counts.attached or counts.wiped or counts.unprotected):
            return
        self.report.counts = left = Counts()
        if counts.attached and not self._send("attached", counts.attached):
            left.attached = counts.attached
        for cause, pages in counts.wiped.items():
            if not self._send("wiped", cause, pages):
                left.wiped[cause] = pages
        for (program, why), times in counts.unprotected.items():
            if not self._send("unprotected", json.dumps([program, why, times])):
                left.unprotected[program, why] = times

# SPDX-License-Identifier: MIT
"""`mlockwipe attach --all`: which processes of this machine are to be attached to, asked anew every second.

This process traces nobody, and waits for nobody: each program has a supervisor process of its own (covering.py).
"""

import os
import pwd
import select
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import zip_longest
from time import monotonic

from mlockwipe.attach.covering import LEFT, Covering
from mlockwipe.attach.holders import describe, holders
from mlockwipe.attach.policy import Policy, Process
from mlockwipe.linux import limits, procfs, signalfd, user_namespace
from mlockwipe.supervisor.attachable import ancestors, name_of
from mlockwipe.supervisor.attached import open_signals
from mlockwipe.supervisor.report import Report

_PERIOD = 1.0  # seconds from one look at the machine to the next
_PATIENCE = 5.0  # seconds from one supervisor's end to the next, when all are to end
_ATTEMPTS = 3  # to cover a process whose supervisor dies
_MOST_OF_A_USER = 32  # supervisors; more programs of the same user share them
_MOST = 512  # of all; a user who has none gets one even then
_NEW = 64  # supervisors in one look at the machine


class Candidate:
    """A process that is to be covered. `family`: what those have in common that came out of one another by fork."""

    def __init__(self, pid: int, started: str, owner: int, family: object) -> None:
        self.pid = pid
        self.started = started
        self.owner = owner
        self.family = family


class Watch:
    """The watcher. `say(verbosity, sentence)` tells the user."""

    def __init__(
        self,
        report: Report,
        least: int,
        policy: Policy,
        say: Callable[[int, str], None],
        *,
        verbosity: int,
        all_memory: bool,
    ) -> None:
        self._report = report
        self._least = least
        self._policy = policy
        self._say = say
        self._verbosity = verbosity
        self._all_memory = all_memory
        self._coverings: dict[int, Covering] = {}  # by the descriptor of their channel
        self._closed: list[Covering] = []  # those of which nothing more is heard, until they are reaped
        self._settled: dict[int, str] = {}  # pids that are not tried again, with their start times
        self._failures: Counter[tuple[int, str]] = Counter()  # of supervisors, by process
        self._said: set[object] = set()
        self._never = set(ancestors(os.getpid()))
        self._is_randomized = procfs.sysctl("kernel/randomize_va_space") != "0"
        self._written = self._state()
        self._signals = open_signals()
        limits.raise_limits(os.getpid())
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until a signal asks to end. No program is covered any more then."""
        due = 0.0
        while True:
            if monotonic() >= due:
                self._look()
                due = monotonic() + _PERIOD
            if self._hear(due):
                break
        self._end()

    def _hear(self, until: float) -> bool:
        """What the supervisors say, and how they end. Whether a signal asks to end."""
        asked = False
        for fd, _ in self._poll.poll(max(0.0, until - monotonic()) * 1000):
            if fd == self._signals:
                asked = any(info.signal != signal.SIGCHLD for info in signalfd.read_signals(fd))
                continue
            covering = self._coverings[fd]
            covering.hear(lambda text: self._say(-1, text))
            if covering.is_closed:
                self._poll.unregister(fd)
                del self._coverings[fd]
                self._closed.append(covering)
        for covering in list(self._closed):
            status = covering.how_it_ended()
            if status is not None:
                self._closed.remove(covering)
                self._on_end(covering, status)
        return asked

    def _on_end(self, covering: Covering, status: int) -> None:
        if covering.is_over:
            self._settled.update(covering.trees)  # of those that are still there it was said why
        elif status != LEFT:
            self._say_once(
                f"the supervisor of process {covering.program} ({name_of(covering.program)}) "
                f"{covering.fate or _how(status)}: what it covered goes on without cover, and is tried again "
                f"{_ATTEMPTS - 1} times at most",
                ("ended", covering.program),
            )
            for tree in covering.trees.items():
                self._failures[tree] += 1
                if self._failures[tree] >= _ATTEMPTS:
                    self._settled.update([tree])

    def _end(self) -> None:
        """Have every supervisor end, by force if it does not by itself or a second signal comes."""
        for covering in self._coverings.values():
            covering.leave()
        deadline, left = monotonic() + _PATIENCE, len(self._coverings)
        while self._coverings and monotonic() < deadline:
            if self._hear(deadline):
                break
            if len(self._coverings) < left:
                deadline, left = monotonic() + _PATIENCE, len(self._coverings)
        for covering in self._coverings.values():
            self._say(
                0,
                f"the supervisor of process {covering.program} ({name_of(covering.program)}) did not end in time and "
                "was killed",
            )
            covering.is_over = True
            _kill(covering)
        deadline = monotonic() + _PATIENCE
        while (self._coverings or self._closed) and monotonic() < deadline:
            self._hear(deadline)

    def _say_once(self, text: str, key: object) -> None:
        if key not in self._said:
            self._said.add(key)
            self._say(0, text)

    # -- every second -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        for covering in self._coverings.values():
            if covering.is_stuck():
                covering.fate = "did not answer any more and was killed"  # the work of its programs comes before ours
                _kill(covering)
        new = 0
        for candidate in _in_turn(self._candidates()):
            new += self._cover(candidate, may_be_new=new < _NEW)
        self._write_report()

    def _candidates(self) -> Iterator[Candidate]:
        known = dict(tree for one in (*self._coverings.values(), *self._closed) for tree in one.trees.items())
        settled = {}
        failures = Counter({tree: self._failures[tree] for tree in known.items()})
        for pid, status, locked in holders(self._least):
            if pid in self._never or pid in known:
                continue
            with suppress(OSError):  # it is gone
                fields = procfs.stat_fields(pid)
                started = fields[19]
                failures[pid, started] = self._failures[pid, started]
                if self._settled.get(pid) == started:
                    settled[pid] = started
                    continue
                process = describe(pid, status, locked)
                if self._policy.allows(process):  # if not, it may exec, or lock less
                    user = int(status["Uid"].split()[1])
                    owner = user_namespace.owner(pid, user)
                    yield Candidate(pid, started, owner, self._family(process, user, int(fields[25]), pid))
        self._settled = settled
        self._failures = failures

    def _family(self, process: Process, user: int, stack_top: int, pid: int) -> object:
        """Relatives share pages, and who wipes one must know of the others: they have one supervisor.

        Where the stack begins was drawn at random at exec, if that is not switched off, and forks keep it.
        """
        if not stack_top:
            return pid
        return process.executable, stack_top, None if self._is_randomized else user

    def _cover(self, candidate: Candidate, *, may_be_new: bool) -> bool:
        """Have a process covered, now or at one of the next looks. True if that took a new supervisor."""
        usable = [one for one in self._coverings.values() if not (one.is_over or one.is_silent)]
        related = [one for one in usable if candidate.family in one.families]
        own = [one for one in usable if one.owner == candidate.owner]
        if not related and len(own) < (_MOST_OF_A_USER if len(self._coverings) < _MOST else 1):
            covering = self._start(candidate.owner) if may_be_new else None
            if covering is not None:
                covering.attach(candidate.pid, candidate.started, candidate.family)
            return covering is not None
        if not related:
            self._say_once(
                f"{_name_of_user(candidate.owner)} has more programs that hold locked memory than the "
                f"{len(own)} supervisors for them: the further ones share those",
                ("share", candidate.owner),
            )
        for covering in related or sorted(own, key=lambda one: len(one.trees)):
            if covering.attach(candidate.pid, candidate.started, candidate.family):
                break
        return False

    def _start(self, owner: int) -> Covering | None:
        others = [self._signals, *self._coverings]
        try:
            covering = Covering(
                self._report, self._verbosity, all_memory=self._all_memory, owner=owner, others=others
            )
        except OSError as error:
            self._say_once(f"no more supervisors can be started ({error.strerror}): it is tried again", "fork")
            return None
        fd = covering.channel.fileno()
        self._coverings[fd] = covering
        self._poll.register(fd, select.POLLIN)
        return covering

    def _write_report(self) -> None:
        if (state := self._state()) == self._written:
            return
        self._written = state
        try:
            self._report.write(final=False)
        except OSError as error:
            self._say_once(f"the report can't be written: {error.strerror}", "report")

    def _state(self) -> tuple[int, int, int]:
        counts = self._report.counts
        return counts.attached, counts.wiped.total(), counts.unprotected.total()


def _in_turn(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """One of each user, then a second of each: thousands of one user's are before nobody else's."""
    of_user: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        of_user.setdefault(candidate.owner, []).append(candidate)
    for row in zip_longest(*of_user.values()):
        yield from (candidate for candidate in row if candidate is not None)


def _kill(covering: Covering) -> None:
    with suppress(ProcessLookupError):
        os.kill(covering.pid, signal.SIGKILL)


def _how(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"has ended with status {status}"


def _name_of_user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"

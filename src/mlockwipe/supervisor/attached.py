# SPDX-License-Identifier: MIT
"""Tracing programs that run already: a keeper in each, and what they have locked is wiped when they are gone.

No seccomp filter is ever added, because none can be taken away again, and a call that a filter wants to have traced
fails once the tracer is gone. So nothing is seen of locks and releases in a living process: what is locked is asked
of the kernel when the memory is released as a whole, at exit, exec or death. In exchange the programs can be left
as they were.

They are left by ending: the kernel then lets go of every task without stopping it. So no call is interrupted, and a
task that is in a ptrace stop goes on by itself, with its signal: linux/wait.py only looks at stops.
"""

import contextlib
import os
import select
import signal
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from mlockwipe.linux import limits, procfs, ptrace, signalfd, wait
from mlockwipe.linux.arch import TASK_SIZE
from mlockwipe.linux.privileged_file import NONE, SET_ID, privilege_of
from mlockwipe.linux.wait import GroupStop, SignalStop, Stop, SyscallStop, TrapStop, UntracedStop
from mlockwipe.memory import in_flight
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.mappings import locked_ranges
from mlockwipe.memory.ranges import Range, RangeSet
from mlockwipe.supervisor.attachable import NotAttached, check, name_of, why_refused
from mlockwipe.supervisor.report import Report
from mlockwipe.tracing.mercy import OPTIONS, AtOurMercy, at_our_mercy
from mlockwipe.tracing.observer import Unobserved
from mlockwipe.tracing.restart import Restarts
from mlockwipe.tracing.seize import seize_sharing
from mlockwipe.tracing.task import FilterTwo, Task
from mlockwipe.tracing.tracees import GONE, Tracees
from mlockwipe.tracing.trouble import reason

_PERIOD = 1.0  # seconds
_QUIET = 20  # milliseconds
_SOME_TIME = 5.0  # seconds until a process that was stuck is tried again
_ATTEMPTS = 3  # to give an address space its keeper
_SIBLINGS = 256  # that are looked at for one that shares its memory; more would take too long for each of thousands
_AT_ONCE = 64  # events, before signals to this process are looked at
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def open_signals() -> int:
    """A signalfd of ends of children, and of what asks to end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as it may be inherited, it lets nobody be waited for
    watched = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]  # nohup(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, *watched])
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # while we are stopped, programs wait for us
    return signalfd.open_signalfd((signal.SIGCHLD, *watched))


class Orders(Protocol):
    """Where programs are named while others are traced."""

    def fileno(self) -> int:
        """Of what is readable when there is one."""

    def take(self) -> bool:
        """Carry out what there is. False: end."""

    def none_left(self) -> None:
        """No task is left that is or may be covered."""

    def flush(self) -> None:
        """The report may have grown."""


class Attached:
    """The programs that are attached to, and their descendants from then on."""

    birth_filter = FilterTwo.NO

    def __init__(self, report: Report, say: Callable[[int, str], None], *, all_memory: bool = False) -> None:
        """`say(verbosity, sentence)` tells the user. `all_memory`: not only locked memory counts as sensitive."""
        self._report = report
        self._say = say
        self._all_memory = all_memory
        self._journal = Journal()  # nobody takes over: none of its slots is ever read
        self._restarts = Restarts(transfers=False)  # the programs outlive us, at any moment
        self._tracees = Tracees(self, Unobserved(), self._journal, self._restarts)
        self._first: set[AddressSpace] = set()  # those that the user has named, until they are covered
        self._failures: Counter[AddressSpace] = Counter()  # in giving a keeper
        self._own_filters = int(procfs.status_field(os.getpid(), "Seccomp_filters"))
        self._said: set[str] = set()
        self._stuck: dict[AddressSpace, float] = {}  # those whose tasks did not stop, and when to try again
        self._unsettled: float | None = None  # seconds, as of Tracees.settle
        self._signals = open_signals()
        wait.bound_waits()
        limits.raise_limits(os.getpid())  # each address space takes four descriptors

    # -- attaching ----------------------------------------------------------------------------------------------

    def attach(self, pid: int) -> None:
        """Trace a process from now on. NotAttached when that can't be; what becomes known later is said."""
        if pid in self._tracees.tasks:
            return
        try:
            status = procfs.Status(pid)
            check(pid, status)
            space = AddressSpace()
            space.family.forked = True  # before our time, for all we know
            space.stack_top = procfs.stack_top(pid)
            space.has_rings = in_flight.has_ring(pid)
        except (FileNotFoundError, ProcessLookupError):
            raise NotAttached("does not exist") from None
        seized = seize_sharing(pid, pid, self._tracees.without_kin(), OPTIONS, siblings=_SIBLINGS)
        self._tracees.add_seized(seized, space)
        if seized.refused:
            space.leave_unprotected(self._journal)  # a thread may be traced, and is let go of with all at the end
            raise NotAttached(why_refused(status))
        if not seized.members:
            raise NotAttached("does not exist any more")
        self._first.add(space)
        self._ask_for_stop(space)

    def _ask_for_stop(self, space: AddressSpace) -> None:
        """Have one task stop, to make the keeper; a parent that waits for its vfork child can't.

        Rather one without seccomp filters of its own, which would have to be suspended for that.
        """
        for tid in sorted(space.tids, key=lambda tid: (procfs.is_deep_asleep(tid), self._is_confined(tid))):
            with contextlib.suppress(ProcessLookupError):
                ptrace.interrupt(tid)
                return

    @property
    def any_left(self) -> bool:
        """Whether there is a task that is or may be covered.

        When all that are known are dead, a child of one of them may not have come to its first stop yet.
        """
        tasks = self._tracees.tasks
        if not tasks:
            return wait.have_children()
        return any(not task.space.is_unprotected for task in tasks.values())

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, orders: Orders | None = None) -> bool:
        """Until no task is left, or a signal asks to end, which makes it False. Then everything is let go of.

        With `orders` it does not end by itself.
        """
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        if orders is not None:
            poll.register(orders.fileno(), select.POLLIN)
        try:
            while True:
                busy = self._handle_tasks()
                self._try_again()
                patience = 0.0 if wait.took_signal() else self._unsettled
                if self._stuck and (patience is None or patience > _PERIOD):
                    patience = _PERIOD
                if orders is not None:
                    orders.flush()
                if not self.any_left:
                    if orders is None:
                        return True
                    orders.none_left()
                    patience = _PERIOD
                ready = poll.poll(0 if busy else None if patience is None else patience * 1000)
                for fd, _ in ready:
                    if fd != self._signals:
                        if orders is not None and not orders.take():
                            return False
                    elif any(info.signal != signal.SIGCHLD for info in signalfd.read_signals(fd)):
                        return False
        finally:
            self._let_go()

    def _try_again(self) -> None:
        now = monotonic()
        for space in [space for space, due in self._stuck.items() if due <= now]:
            del self._stuck[space]
            self._ask_for_stop(space)

    def _let_go(self) -> None:
        """End the keepers. The programs are let go of by the kernel, when this process ends."""
        deadline = monotonic() + _PERIOD  # a program that forks without end has always more to report
        while self._handle_tasks() and monotonic() < deadline:
            pass
        keepers = self._tracees.keepers
        while keepers:
            _, space = keepers.popitem()
            space.leave_unprotected(self._journal)
        # A program that is itself the reaper of its keepers, as process 1 is, gets SIGCHLD for them.
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        # What is not handled by then ends as it is: a call that we have interrupted, with EINTR.
        deadline = monotonic() + _PERIOD
        while (wait.took_signal() or poll.poll(_QUIET)) and monotonic() < deadline:
            signalfd.read_signals(self._signals)
            self._handle_tasks()

    def _handle_tasks(self) -> bool:
        """The events of the tasks; True when there may be more of them."""
        for _ in range(_AT_ONCE):
            try:
                found = wait.look()
            except ChildProcessError:
                return False
            if found is None:
                break
            end = self._tracees.handle(found)
            if end is not None:
                wait.reap(end.tid)
        else:
            return True
        self._unsettled = self._tracees.settle()
        return False

    # -- stops --------------------------------------------------------------------------------------------------

    def on_stop(self, task: Task, stop: Stop) -> None:
        """Let a task go on from a stop on its way to user space, as the stop demands."""
        if task.tid in at_our_mercy:
            ptrace.set_options(task.tid, OPTIONS)
            at_our_mercy.discard(task.tid)
        if isinstance(stop, SyscallStop):
            if task.space.is_unheld:
                ptrace.interrupt(task.tid)  # this stop has used up the one that was asked for
            self._restarts.at_call(task)
            return
        if task.space.is_unheld and task.space not in self._stuck:
            if isinstance(stop, SignalStop):
                ptrace.interrupt(task.tid)  # this stop has used up the one that was asked for
            else:
                stop = self._protect(task, stop)
        if isinstance(stop, GroupStop):
            self._restarts.at_group_stop(task)
            ptrace.listen(task.tid)
            return
        signal = stop.signal if isinstance(stop, SignalStop) else 0
        self._restarts.go_on(task, self._restarts.at_stop(task, signal) if signal else 0)

    def on_untraced_stop(self, stop: UntracedStop) -> None:
        """There is no child that is not traced."""

    # -- protecting ---------------------------------------------------------------------------------------------

    def _protect(self, task: Task, stop: Stop, like: Keeper | None = None) -> Stop:
        """Give the address space of a task, which is in a stop on its way to user space, its keeper.

        The stop that the task is in then.
        """
        space, mercy = task.space, None
        try:
            self._restarts.at_stop(task)
            mercy = AtOurMercy(task.tid, suspend_seccomp=self._is_confined(task.tid))
            keeper = Keeper.create_mortal(task.tid, like, mercy)
        except GONE:
            # It is dying, or a helper of ours was killed.
            self._failures[space] += 1
            if self._failures[space] < _ATTEMPTS:
                with contextlib.suppress(ProcessLookupError):
                    ptrace.interrupt(task.tid)
                return mercy.stop if mercy else stop
            self._can_not_protect(space, task.tgid, "its keeper was killed while it was made")
        except wait.Stuck as error:
            self._stuck[space] = monotonic() + _SOME_TIME
            self._say_once(
                f"process {task.tgid} ({_program(task.tgid)}) is not covered yet: {error.strerror}",
                f"stuck {task.tgid}",
            )
            return mercy.stop if mercy else stop
        except OSError as error:
            self._can_not_protect(space, task.tgid, error.strerror or str(error))
        except Exception as error:
            self._can_not_protect(space, task.tgid, reason(error))
        else:
            self._tracees.keep(space, keeper)
            if space in self._first:
                self._say_covered(space, task.tgid)
        self._first.discard(space)
        del self._failures[space]
        return mercy.stop if mercy else stop

    def _is_confined(self, tid: int) -> bool:
        """Whether seccomp may keep a task from what we would have it do: filters of its own, or the strict mode."""
        try:
            status = procfs.Status(tid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(status["Seccomp_filters"]) > self._own_filters or status["Seccomp"] == "1"

    def _say_covered(self, space: AddressSpace, tgid: int) -> None:
        self._report.counts.attached += 1
        self._say(0, f"process {tgid} ({_program(tgid)}) is covered from now on")
        if not self._all_memory and not self.sensitive(space, tgid):
            self._say(
                0,
                f"process {tgid} has nothing locked at present; whether it has inherited copies of "
                "locked memory, as gpg-agent has, can't be told: --all-memory covers them",
            )

    def _can_not_protect(self, space: AddressSpace, tgid: int, reason: str) -> None:
        space.leave_unprotected(self._journal)
        self.not_protected(tgid, reason)

    def not_protected(self, tgid: int, reason: str) -> None:
        program = _program(tgid)
        kind = self._report.counts.not_protected(program, reason)
        self._say_once(f"process {tgid} ({program}) can't be covered: {reason}", kind)

    def partly_protected(self, tgid: int, reason: str) -> None:
        self.not_protected(tgid, reason)

    def _say_once(self, text: str, key: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._say(0, text)

    def sensitive(self, space: AddressSpace, tid: int) -> RangeSet:
        """What is locked, and what was inherited."""
        if self._all_memory:
            return RangeSet([(0, TASK_SIZE)])
        ranges = space.sensitive.ranges.copy()
        with contextlib.suppress(OSError, KeyError):  # it is gone, or dying, and has no memory any more
            held = space.held
            if procfs.status_field(held.keeper.pid if held else tid, "VmLck") != "0 kB":
                # Not before: smaps takes longer, the more memory there is.
                for start, end in held.mappings.locked() if held else _locked_by(tid):
                    ranges.add(start, end)
        return ranges

    # -- births, exec and ends ----------------------------------------------------------------------------------

    def forked(self, parent: AddressSpace, child: AddressSpace, tgid: int) -> None:
        self._report.counts.attached += 1
        if parent.is_unprotected:  # as the user was told
            child.leave_unprotected(self._journal)

    def unknown(self, child: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            ptrace.detach(child)
        self._say_once(f"process {child} can't be covered: the kernel tells nothing of it", "unknown")

    def welcome(self, task: Task, parent: AddressSpace | None) -> None:
        if task.space.is_unheld:
            held = parent.held if parent is not None else None
            self._protect(task, TrapStop(task.tid), held.keeper if held else None)

    def executes(self, task: Task) -> None:
        """The new program gets its keeper at a stop on the way to its first instruction: what is set in the registers
        now, the end of execve overwrites."""
        with contextlib.suppress(*GONE):
            task.space.stack_top = procfs.stack_top(task.tid)
        if os.geteuid() != 0 and (privilege := privilege_of(f"/proc/{task.tid}/exe")) != NONE:
            program = procfs.executable(task.tid)
            what = "is set-user-ID or set-group-ID" if privilege == SET_ID else "has file capabilities"
            self._say_once(
                f"{program} {what} and runs without that privilege: the kernel gives it to no program that is traced "
                "by an ordinary user",
                program,
            )
        ptrace.interrupt(task.tid)

    def released(self, space: AddressSpace, keeper: int | None, tgid: int, cause: str, pages: int) -> None:
        del self._failures[space]
        self._stuck.pop(space, None)
        if space in self._first:
            self._first.discard(space)
            self._say(0, f"process {tgid} was gone before it was covered")
        if keeper is not None:
            self._say(1, f"process {tgid}: memory released by {cause}, {pages} pages wiped")
        if pages:
            self._report.counts.wiped[cause] += pages
            try:
                self._report.write(final=False)
            except OSError as error:
                self._say_once(f"the report can't be written: {error.strerror}", "report")


def _program(pid: int) -> str:
    path = procfs.executable(pid)
    return path if path != "?" else name_of(pid)


def _locked_by(pid: int) -> list[Range]:
    """What a task has locked, nothing if it does not let us see."""
    with contextlib.suppress(OSError):
        smaps = procfs.open_file(pid, "smaps")
        try:
            return locked_ranges(smaps)
        finally:
            os.close(smaps)
    return []

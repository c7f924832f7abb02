# SPDX-License-Identifier: MIT
"""Programs under filter one and, from their first lock on, filter two: what `run` supervises."""

import os
import signal
from collections.abc import Callable

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.wait import End, GroupStop, SeccompStop, SignalStop, Stop, SyscallStop, UntracedStop
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.journal import Journal, SaveArea
from mlockwipe.memory.ranges import RangeSet
from mlockwipe.supervisor.custody import Custody
from mlockwipe.supervisor.launch import lost_privilege
from mlockwipe.tracing.burst import Burst
from mlockwipe.tracing.counts import Counts
from mlockwipe.tracing.notified import NotifiedCalls
from mlockwipe.tracing.observer import Observer
from mlockwipe.tracing.protection import Protection
from mlockwipe.tracing.restart import Restarts
from mlockwipe.tracing.task import FilterTwo, Task, TaskState
from mlockwipe.tracing.tracees import Tracees
from mlockwipe.tracing.trapped import TrappedCalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object  # typing takes 4 ms to import


class Owner(Protocol):
    """Who runs the supervisor, as far as the programs concern it."""

    def say(self, key: str, text: str) -> None:
        """Tell the user something, once for each key."""

    def note_death_signal(self, tgid: int, number: int) -> None:
        """A process asks for a signal at the death of its parent."""

    def stopped(self, tid: int, by: int | None) -> None:
        """A task was stopped by a job-control signal, or continued (None)."""


class Filtered:
    """The policy of tracing for them. `inherited_filters`: how many they had before filter one. `strict`: a lock that
    can't be protected is refused. `unmap`: releases by a living process are wiped, too.
    """

    birth_filter = FilterTwo.YES

    def __init__(
        self,
        listener: int,
        owner: Owner,
        custody: Custody,
        observer: Observer,
        counts: Counts,
        journal: Journal,
        save_area: SaveArea,
        *,
        inherited_filters: int,
        strict: bool,
        unmap: bool,
    ) -> None:
        self._owner = owner
        self._custody = custody
        self._counts = counts
        self._strict = strict
        self._unmap = unmap
        self._burst = Burst()
        self._unsettled: float | None = None  # seconds, as of Tracees.settle
        self._restarts = Restarts(transfers=True)
        self.tracees = Tracees(self, observer, journal, self._restarts)
        self._trapped = TrappedCalls(self.tracees, counts, save_area)
        self._protection = Protection(self.tracees, custody.entrust, inherited_filters, unmap=unmap)
        self._notified = NotifiedCalls(
            listener,
            self.tracees,
            self._trapped,
            self._protection,
            counts,
            owner.say,
            owner.note_death_signal,
            strict=strict,
        )

    # -- events, for the loop of the owner ----------------------------------------------------------------------

    @property
    def patience(self) -> float | None:
        """How long the loop may sleep, in seconds; None without end."""
        return 0 if self._burst.on else self._unsettled

    def handle_events(self, ended: Callable[[End], None]) -> bool:
        """Every event of the tasks, and of other children: False when there is none of them left. `ended` reaps."""
        while True:
            try:
                found = self._burst.next()
            except ChildProcessError:
                self._burst.end()
                self._unsettled = None
                return False
            if found is None:
                self._unsettled = self.tracees.settle()
                return True
            end = self.tracees.handle(found)
            if end is None:
                self._burst.stop_handled()
            else:
                ended(end)

    def handle_notification(self) -> None:
        self._burst.end()  # which would not hear of the next one
        self._notified.handle()

    # -- stops --------------------------------------------------------------------------------------------------

    def on_stop(self, task: Task, stop: Stop) -> None:
        kind = type(stop)
        if kind is SeccompStop:
            self._trapped.entered(task)
        elif kind is SyscallStop and task.state is TaskState.IN_CALL:
            self._trapped.returned(task)
            ptrace.cont(task.tid)
        elif kind is SyscallStop:
            if task.lacks_filter and task.space.held is not None:
                ptrace.interrupt(task.tid)  # this stop has used up the one that was asked for
            self._restarts.at_call(task)
        else:
            self._resume(task, stop)

    def _resume(self, task: Task, stop: Stop) -> None:
        """Let a task go on from a stop on its way to user space, as the stop demands."""
        came_from = task.state
        if came_from is TaskState.NOTIFIED:
            self._trapped.returned(task)
        self._protection.add_filter(task)
        if isinstance(stop, GroupStop):
            self._restarts.at_group_stop(task)
            task.become(TaskState.GROUP_STOPPED)
            ptrace.listen(task.tid)
            self._owner.stopped(task.tid, stop.signal)
            return
        if came_from is TaskState.GROUP_STOPPED:
            task.become(TaskState.RUNNING)
            self._owner.stopped(task.tid, None)
        signal = stop.signal if isinstance(stop, SignalStop) else 0
        if signal or came_from is TaskState.RUNNING:
            signal = self._restarts.at_stop(task, signal)
        self._restarts.go_on(task, signal)

    def on_untraced_stop(self, stop: UntracedStop) -> None:
        self._owner.stopped(stop.tid, stop.signal)

    # -- births, exec and ends ----------------------------------------------------------------------------------

    def sensitive(self, space: AddressSpace, tid: int) -> RangeSet:
        space.ask_for_unwatched()
        sensitive = space.sensitive
        if self._unmap or sensitive.inherited or not sensitive.ranges or space.held is None:
            return sensitive.ranges
        # unmaps were not seen, so an address in the set may have been mapped anew: let the kernel say what is locked
        locked = space.state.mappings.locked()
        return RangeSet(part for start, end in locked for part in sensitive.ranges.within(start, end))

    def forked(self, parent: AddressSpace, child: AddressSpace, tgid: int) -> None:
        self.tracees.observer.forked(parent, child, tgid)

    def unknown(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)  # its filters stop it for us, and without us it can't go on

    def welcome(self, task: Task, parent: AddressSpace | None) -> None:
        space = task.space
        if not space.is_unheld or not space.sensitive.ranges:
            return
        held = parent.held if parent is not None else None
        self._protection.protect(task, held.keeper if held else None)
        self._protection.entrust(task)
        if space.held is not None:
            space.forget_unmapped()
            space.record(self.tracees.journal)

    def executes(self, task: Task) -> None:
        program = f"/proc/{task.tid}/exe"
        if (sentence := lost_privilege(program, procfs.executable(task.tid))) is not None and (
            procfs.status_field(task.tid, "NoNewPrivs") == "1"
        ):
            self._owner.say(sentence, sentence)

    def released(self, space: AddressSpace, keeper: int | None, tgid: int, cause: str, pages: int) -> None:
        if pages:
            self._counts.wiped[cause] += pages
        if keeper is not None:
            self._custody.keeper_gone(keeper)

    def not_protected(self, tgid: int, reason: str) -> None:
        outcome = "its lock is refused" if self._strict else "it goes on"
        self._say_unprotected(tgid, f"can't be protected, {outcome}", reason)

    def partly_protected(self, tgid: int, reason: str) -> None:
        self._say_unprotected(tgid, "is protected in part", reason)

    def _say_unprotected(self, tgid: int, verdict: str, reason: str) -> None:
        program = procfs.executable(tgid)
        kind = self._counts.not_protected(program, reason)
        self.tracees.observer.not_protected(program)
        self._owner.say(kind, f"{program} (process {tgid}) {verdict}: {reason}")

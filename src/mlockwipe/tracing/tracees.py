# SPDX-License-Identifier: MIT
"""All tasks that one process traces, and their address spaces: births, exec, ends, keepers, orphans.

What `run` and `attach` have in common. Where they differ a policy is asked: supervisor/filtered.py for `run`,
supervisor/attached.py for `attach`.
"""

import contextlib
import os
from collections.abc import Callable
from time import monotonic

from mlockwipe.linux import kcmp, procfs, ptrace, wait
from mlockwipe.linux.wait import (
    BIRTHS,
    EVENT_EXEC,
    EVENT_EXIT,
    End,
    EventStop,
    GroupStop,
    SignalStop,
    Stop,
    TaskGone,
    UntracedStop,
)
from mlockwipe.memory.address_space import AddressSpace, Held
from mlockwipe.memory.inject import unfinished
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.keeper import Keeper, end_task
from mlockwipe.tracing.kin import sharing
from mlockwipe.tracing.newborn import is_helper, orphan, share_memory
from mlockwipe.tracing.observer import Observer
from mlockwipe.tracing.policy import Policy
from mlockwipe.tracing.releases import Releases
from mlockwipe.tracing.restart import Restarts
from mlockwipe.tracing.seize import Seized
from mlockwipe.tracing.task import Task, TaskState
from mlockwipe.tracing.trouble import reason

GONE = (ProcessLookupError, FileNotFoundError, TaskGone)
_SOON = 0.05  # seconds, by which the event of a newborn's maker has come, or the end of a child been handled
_LATER = 0.1  # seconds from one look at a program whose keeper was killed to the next


class Tracees:
    """`observer`: who hears of what happens to them. `journal`: where the ranges of the keepers are kept. `restarts`:
    their calls that signals have interrupted."""

    def __init__(self, policy: Policy, observer: Observer, journal: Journal, restarts: Restarts) -> None:
        self.policy = policy
        self.restarts = restarts
        self.observer = observer
        self.journal = journal
        self.tasks: dict[int, Task] = {}
        self.keepers: dict[int, AddressSpace] = {}
        self._halted: set[int] = set()  # keepers in their exit stop
        self._put_off: dict[int, float] = {}  # at the entry of a wait, until when
        self._newborn: dict[int, float] = {}  # in their first stop, since when; the event of their maker is to come
        self._releases = Releases(
            policy,
            observer,
            journal,
            failed=self.failed,
            keeper_gone=self._keeper_gone,
            all_children=self._all_children,
        )

    # -- tasks --------------------------------------------------------------------------------------------------

    def add(self, task: Task) -> None:
        self.tasks[task.tid] = task
        task.space.tids.add(task.tid)
        task.space.shared |= len(task.space.tids) > 1

    def add_seized(self, seized: Seized, space: AddressSpace) -> None:
        for tid, tgid in seized.members:
            self.add(Task(tid, tgid, space))

    def without_kin(self) -> Callable[[int], bool]:
        """Who is known to share its memory with nobody that is not traced: our helpers, and tasks in memory of which
        all users were found when it got its keeper."""
        helpers = {space.held.keeper.worker.tid for space in self.keepers.values() if space.held is not None}
        known = self.keepers.keys() | helpers
        tasks = self.tasks
        return lambda pid: pid in known or (pid in tasks and not tasks[pid].space.is_unprotected)

    def keep(self, space: AddressSpace, keeper: Keeper) -> Held:
        """An address space has got its keeper."""
        try:
            held = space.hold(keeper, self.journal)
        except Exception:
            keeper.let_go()
            raise
        self.keepers[keeper.pid] = space
        return held

    def _forget(self, tid: int) -> Task | None:
        task = self.tasks.pop(tid, None)
        self._put_off.pop(tid, None)
        unfinished.pop(tid, None)
        if task is not None:
            self.restarts.forget(tid)
            task.space.tids.discard(tid)
            self._forget_call(task)
        return task

    def _forget_call(self, task: Task) -> None:
        """Nobody will look at the return of the call that a task is in."""
        under_way, task.under_way = task.under_way, None
        if task.state in (TaskState.NOTIFIED, TaskState.IN_CALL):
            task.become(TaskState.RUNNING)
        if under_way is not None:
            with contextlib.suppress(Exception):
                task.space.abandon(under_way)

    def _process_of(self, space: AddressSpace) -> int:
        """One process that uses it, 0 when there is none."""
        return next((self.tasks[tid].tgid for tid in space.tids), 0)

    # -- events -------------------------------------------------------------------------------------------------

    def handle(self, found: Stop | End) -> End | None:
        """Handle an event that was only looked at. The caller reaps the task of an end that is returned."""
        if self._put_off:
            self._go_on_waiting(monotonic())
        if isinstance(found, End):
            stop = wait.look_for_stop()  # every stop comes before any end
            if stop is None:
                try:
                    self._on_end(found)
                except Exception as error:
                    self.failed(found.tid, error)
                    self._drop(found.tid)
                return None if wait.is_put_off(found.tid) else found
            found = stop
        self.on_stop(found)
        return None

    def failed(self, tgid: int, error: Exception) -> None:
        """Something has gone wrong with one process: no reason to end, and all others with it."""
        with contextlib.suppress(Exception):
            self.policy.not_protected(tgid, reason(error))

    def _drop(self, tid: int) -> None:
        """Forget a task whose end could not be dealt with, and give back the memory that nobody uses any more."""
        self._forget(tid)
        self.keepers.pop(tid, None)
        for keeper, space in [(keeper, space) for keeper, space in self.keepers.items() if not space.tids]:
            del self.keepers[keeper]
            with contextlib.suppress(Exception):
                space.release(self.journal)

    def settle(self) -> float | None:
        """To be called when there are no more events, and again after so many seconds, should none come by then."""
        wait.took_signal()  # of what has been looked at since
        if self._put_off:
            self._go_on_waiting()
        soon = self.restarts.settle()
        if self._newborn:
            self._adopt_lost()
        # Killed with its keeper, process 1 of a PID namespace gives its memory up and then waits for the keeper's
        # end, with nothing for us to see (zap_pid_ns_processes in kernel/pid_namespace.c).
        for keeper in list(self._halted):
            self._release_if_halted(self.keepers[keeper])
        waits = [_SOON] * bool(self._newborn) + [_LATER] * bool(self._halted)
        if soon is not None:
            waits.append(soon)
        if (soon := self._releases.look()) is not None:
            waits.append(soon)
        return 0.0 if wait.took_signal() else min(waits, default=None)

    def await_io(self, space: AddressSpace) -> None:
        """A call has released memory that I/O still refers to."""
        self._releases.await_io(space, self._process_of(space))

    def put_off(self, task: Task) -> None:
        """Let a task that asks for ended children, and will not wait for one, go on when there are no more events.

        A pidfd is readable from the moment of death, when its end is still ours (do_notify_pidfd in kernel/signal.c).
        """
        wait.take(task.tid)
        self._put_off[task.tid] = monotonic() + _SOON

    def _go_on_waiting(self, now: float | None = None) -> None:
        """All that were put off, or those whose time is up."""
        for tid in [tid for tid, until in self._put_off.items() if now is None or until <= now]:
            del self._put_off[tid]
            with contextlib.suppress(ProcessLookupError):
                ptrace.cont(tid)

    def on_stop(self, stop: Stop) -> None:
        task = self.tasks.get(stop.tid)
        if task is None:
            try:
                self._on_stop_of_other(stop)
            except Exception as error:
                self.failed(stop.tid, error)
                _go_on(stop)
            return
        try:
            if unfinished and (injection := unfinished.get(stop.tid)) is not None:
                found = injection.finish(stop)
                if found is None:
                    return
                stop = found
            if not isinstance(stop, EventStop):
                self.policy.on_stop(task, stop)
                return
            if stop.event in BIRTHS:
                with contextlib.suppress(*GONE):  # of the child
                    self._adopt(ptrace.get_event_message(stop.tid), task, stop.event)
            elif stop.event == EVENT_EXEC:
                # Another thread than the first had a tid of its own until now, and the kernel refuses every request
                # for it (ESRCH) until this stop was waited for (looks_like_a_spurious_pid in kernel/ptrace.c, 5.13).
                wait.take(stop.tid)
                self._on_exec(task, ptrace.get_event_message(stop.tid))
            ptrace.cont(stop.tid)
        except GONE:
            # killed in the stop: its end is reported like any other; or another task was, that this was about
            _go_on(stop)
        except Exception as error:
            self.failed(task.tgid, error)
            _bring_back(task)
            self._forget_call(task)
            _go_on(stop)

    def _on_stop_of_other(self, stop: Stop) -> None:
        tid = stop.tid
        with contextlib.suppress(ProcessLookupError):
            wait.take(tid)
            if tid in self.keepers and not (isinstance(stop, EventStop) and stop.event == EVENT_EXIT):
                return  # Something woke it, SIGSTOP say: here it stays, and holds the memory just as well.
            if isinstance(stop, UntracedStop):
                self.policy.on_untraced_stop(stop)
            elif tid in self.keepers:
                self._halted.add(tid)  # killed by somebody: there it stays, and holds the memory
                self._release_if_halted(self.keepers[tid])
            elif isinstance(stop, EventStop) and stop.event == EVENT_EXEC:
                # The first thread had ended before we traced the process; another has got its tid by exec.
                former = self.tasks.get(ptrace.get_event_message(tid))
                if former is not None:
                    self._on_exec(Task(tid, former.tgid, former.space, former.filter_two), former.tid)
                ptrace.cont(tid)
            else:
                self._newborn[tid] = monotonic()

    # -- births -------------------------------------------------------------------------------------------------

    def _adopt(self, child: int, maker: Task, event: int) -> None:
        """A task of ours has made another, which waits in its first stop or will be there soon."""
        if child in self.tasks:
            return
        if self._newborn.pop(child, None) is None:
            try:
                wait.await_stop(child)
            except wait.Stuck:
                return  # it is frozen, and will be a newborn that was lost, once it stops
        try:
            tgid = int(procfs.status_field(child, "Tgid"))
            space = maker.space
            if tgid != maker.tgid and not share_memory(child, maker, event):
                space = space.forked(self.policy.sensitive(space, maker.tid))
                self.policy.forked(maker.space, space, tgid)
        except GONE:
            raise
        except OSError:
            self.policy.unknown(child)
            raise
        except Exception as error:
            # As a thread of its maker it is not protected, but no memory that it may use is wiped before it is gone.
            self.failed(child, error)
            tgid, space = child, maker.space
        self._welcome(Task(child, tgid, space, maker.filter_two), maker.space)

    def _adopt_lost(self) -> None:
        """Newborns whose maker was killed before the kernel reported them.

        As a rule their parent is somebody else then. Not so if the maker was a thread that another one's exec has
        ended, or if the new parent is one of ours, too.
        """
        known = {task.tgid for task in self.tasks.values()}
        for child, since in list(self._newborn.items()):
            try:
                status = procfs.Status(child)
                tgid = int(status["Tgid"])
                if {tgid, int(status["PPid"])} & known and monotonic() - since < _SOON:
                    continue  # its maker may live, and the event is to come
                del self._newborn[child]
                if is_helper(child):
                    end_task(child)  # of a keeper that was being made when its program was killed
                    continue
                try:
                    space = self._shared_by(child) or orphan(
                        child, self.keepers.values(), self._releases.last, self.policy.sensitive
                    )
                except GONE:
                    raise
                except Exception as error:
                    self.failed(tgid, error)
                    space = AddressSpace()
                    space.leave_unprotected(self.journal)
                self._welcome(Task(child, tgid, space, self.policy.birth_filter), None)
            except GONE:
                pass
            except Exception as error:
                self.failed(child, error)

    def _shared_by(self, child: int) -> AddressSpace | None:
        """The address space that a task shares, as a child of clone(CLONE_VM) does; None for one of its own."""
        for keeper, space in self.keepers.items():
            with contextlib.suppress(OSError):
                if kcmp.same_address_space(child, keeper):
                    return space
        return None

    def _welcome(self, task: Task, parent: AddressSpace | None) -> None:
        self.add(task)
        try:
            self.policy.welcome(task, parent)
        except GONE:
            raise
        except Exception as error:
            self.failed(task.tgid, error)
        finally:
            ptrace.cont(task.tid)

    # -- exec and ends ------------------------------------------------------------------------------------------

    def _on_exec(self, task: Task, former_tid: int) -> None:
        """A process has begun a new program: all its threads but this one are gone, and so is its memory."""
        space = task.space
        self.observer.gone(task.tgid)
        for other in [other for other in space.tids if self.tasks[other].tgid == task.tgid]:
            self._forget(other)
        self._forget(former_tid)
        task = Task(task.tid, task.tgid, AddressSpace(), task.filter_two)
        self.add(task)
        if not space.tids and not self._has_heirs(space, task.tgid, "exec"):
            self._releases.release(space, task.tgid, "exec")
        self.policy.executes(task)

    def _on_end(self, end: End) -> None:
        """A task is dead and not yet reaped: its parent hears of it when we have wiped, not before."""
        self._newborn.pop(end.tid, None)
        if end.tid in self.keepers:
            self._lost_keeper(end.tid)
        elif (task := self._forget(end.tid)) is not None:
            space = task.space
            if all(self.tasks[other].tgid != task.tgid for other in space.tids):
                self.observer.gone(task.tgid)
            if not space.tids and not self._has_heirs(space, task.tgid, end.cause):
                self._releases.release(space, task.tgid, end.cause, end.tid)
            elif space.held is not None:
                self._release_if_halted(space)

    def _has_heirs(self, space: AddressSpace, tgid: int, cause: str) -> bool:
        """Whether a task uses the memory of whose birth we have not heard, for its maker was killed in making it.

        That is a child of vfork or clone(CLONE_VM). A maker that was alone in its memory died by a signal then.
        """
        held = space.held
        if held is None or not (space.shared or cause not in ("exit", "exec")):
            return False
        for heir in sharing(held.keeper.pid, tgid, self.without_kin()):
            with contextlib.suppress(*GONE):
                if int(procfs.status_field(heir, "TracerPid")) != os.getpid():
                    continue
                task = Task(heir, heir, space, self.policy.birth_filter)
                if self._newborn.pop(heir, None) is not None:
                    self._welcome(task, space)
                else:
                    self.add(task)  # it has yet to come to its first stop
        return bool(space.tids)

    def _lost_keeper(self, pid: int) -> None:
        """Somebody killed a keeper, and it got past its exit stop: its memory is no longer held."""
        space = self.keepers.pop(pid)
        self._halted.discard(pid)
        space.leave_unprotected(self.journal)
        self.policy.not_protected(self._process_of(space), "its keeper was killed")
        self._releases.give_up(space)

    def _release_if_halted(self, space: AddressSpace) -> None:
        """A keeper was killed, and halts in its exit stop. If it alone is left to use the memory, release that now.

        Process 1 of a PID namespace kills all others there when it ends, keepers too, and is not dead before they are
        (zap_pid_ns_processes in kernel/pid_namespace.c).
        """
        assert space.held is not None
        if self._releases.awaits_io(space) and not space.tids:
            return  # it is being released
        if space.held.keeper.pid in self._halted and not procfs.have_memory(space.tids):
            tgid = self._process_of(space)
            for tid in list(space.tids):
                self._forget(tid)
            self._releases.release(space, tgid, "SIGKILL")

    def _keeper_gone(self, keeper: int) -> None:
        del self.keepers[keeper]
        self._halted.discard(keeper)

    def _all_children(self) -> list[int]:
        found = [*self.tasks, *self.keepers, *self._newborn]
        with contextlib.suppress(OSError):
            found += procfs.children(os.getpid())
        return found


def _bring_back(task: Task) -> None:
    """The content that a task's call would have released, if it has failed."""
    with contextlib.suppress(Exception):
        if (under_way := task.under_way) is not None and under_way.saved is not None:
            result = ptrace.get_registers(task.tid).result
            if not under_way.call.succeeds(result):
                under_way.saved.bring_back()


def _go_on(stop: Stop) -> None:
    """Let a task go on as if nobody had looked at its stop."""
    with contextlib.suppress(ProcessLookupError):
        if isinstance(stop, GroupStop):
            ptrace.listen(stop.tid)
        else:
            ptrace.cont(stop.tid, stop.signal if isinstance(stop, SignalStop) else 0)

# SPDX-License-Identifier: MIT
"""Calls of filter one: locks, and what else the supervisor has to hear of before the kernel does it.

They wait for an answer. At the first of them a process is traced and its address space gets its keeper.
"""

import contextlib
import errno
from collections.abc import Callable

from mlockwipe.linux import procfs, ptrace, seccomp, wait
from mlockwipe.linux.prctl import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, PR_SET_SECCOMP
from mlockwipe.linux.seccomp_filter import SET_MODE_STRICT
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.calls import Call, decode
from mlockwipe.tracing.counts import Counts
from mlockwipe.tracing.protection import Protection
from mlockwipe.tracing.restart import ERESTARTNOINTR
from mlockwipe.tracing.seize import seize_sharing
from mlockwipe.tracing.task import FilterTwo, Task, TaskState
from mlockwipe.tracing.tracees import GONE, Tracees
from mlockwipe.tracing.trapped import TrappedCalls

PTRACE_OPTIONS = (
    ptrace.O_TRACESYSGOOD
    | ptrace.O_TRACEFORK
    | ptrace.O_TRACEVFORK
    | ptrace.O_TRACECLONE
    | ptrace.O_TRACEEXEC
    | ptrace.O_TRACESECCOMP
    | ptrace.O_EXITKILL
)

_LISTENER = (
    "listener",
    "a process wants a seccomp notification listener of its own, and the kernel allows one only: "
    "the call fails with EBUSY",
)
_STRICT_MODE = (
    "strict mode",
    "a process wants seccomp's strict mode, which the kernel gives to none that has a filter: "
    "the call fails with EINVAL",
)


class NotifiedCalls:
    """`say`: tells the user something, once for a key. `note_death_signal`: hears which signal a process asks for at
    its parent's death. `strict`: a lock that can't be protected is refused."""

    def __init__(
        self,
        listener: int,
        tracees: Tracees,
        trapped: TrappedCalls,
        protection: Protection,
        counts: Counts,
        say: Callable[[str, str], None],
        note_death_signal: Callable[[int, int], None],
        *,
        strict: bool,
    ) -> None:
        self._listener = listener
        self._tracees = tracees
        self._trapped = trapped
        self._protection = protection
        self._counts = counts
        self._say = say
        self._strict = strict
        self._note_death_signal = note_death_signal

    def handle(self) -> None:
        """Answer the call that waits, if there is one."""
        notification = seccomp.receive(self._listener)
        if notification is None:
            return
        try:
            self._answer(notification)
        except GONE:
            # killed meanwhile, or this is about a task of its process that was: if it still waits, it goes on
            seccomp.let_go_on(self._listener, notification)
        except Exception as error:
            task = self._tracees.tasks.get(notification.tid)
            self._tracees.failed(task.tgid if task else notification.tid, error)
            try:
                self._let_go_on_unprotected(notification)
            except KeyError:  # of what it asks for nothing is known
                seccomp.let_go_on(self._listener, notification)

    def _answer(self, notification: seccomp.Notification) -> None:
        tid = notification.tid
        task = self._tracees.tasks.get(tid)
        memory_fd = task.space.state.memory_fd if task else -1
        call = decode(notification.audit_arch, notification.number, notification.arguments, memory_fd)
        if _wants_seccomp(call):
            strict = call.name == "prctl" or call.arguments[0] == SET_MODE_STRICT
            self._say(*(_STRICT_MODE if strict else _LISTENER))
            seccomp.let_go_on(self._listener, notification)
            return
        if call.name == "prctl" and call.arguments[0] in (PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER):
            note = self._note_death_signal if call.arguments[0] == PR_SET_PDEATHSIG else self._protection.note_reaper
            note(int(procfs.status_field(tid, "Tgid")), call.arguments[1])
            seccomp.let_go_on(self._listener, notification)
            return
        if task is None:
            task = self._trace(tid)
            if not seccomp.is_pending(self._listener, notification):
                return  # it was killed, and the tid may be another's by now
        refused = task is not None and task.filter_two is FilterTwo.REFUSED
        if task is None or task.space.is_unprotected or (refused and (self._strict or task.space.is_unheld)):
            self._let_go_on_unprotected(notification)
        elif task.space.is_unheld or task.lacks_filter:
            self._prepare(notification, task)  # the call is restarted, and notified again
        else:
            self._let_go_on(notification, task, call)

    def _let_go_on_unprotected(self, notification: seccomp.Notification) -> None:
        if self._strict and _locks_or_maps(
            decode(notification.audit_arch, notification.number, notification.arguments, -1)
        ):
            seccomp.refuse(self._listener, notification, errno.EPERM)
        else:
            seccomp.let_go_on(self._listener, notification)

    def _let_go_on(self, notification: seccomp.Notification, task: Task, call: Call) -> None:
        watched = _locks_or_maps(call)
        if (
            call.name in ("mlock", "mlock2")
            and not self._tracees.observer.watches_locks
            and task.space.lock_unwatched(call)
        ):
            task.space.record(self._tracees.journal)
            watched = False
        if watched:
            task.under_way = self._trapped.begin(task, call)
            watched = task.under_way is not None
        if watched:
            task.become(TaskState.NOTIFIED)
            # Asked for while the call waits, which is a killable wait by now, the stop comes when it is done.
            ptrace.interrupt(task.tid)
        seccomp.let_go_on(self._listener, notification)
        if watched:
            self._trapped.await_return(task)

    def _trace(self, tid: int) -> Task | None:
        """Trace all tasks of a process, and of those that share its memory. None: refused."""
        status = procfs.Status(tid)
        tgid = int(status["Tgid"])
        seized = seize_sharing(tid, tgid, self._tracees.without_kin(), PTRACE_OPTIONS)
        before = [
            self._tracees.tasks[process].space for process in seized.processes if process in self._tracees.tasks
        ]
        space = before[0] if before else AddressSpace()
        self._tracees.add_seized(seized, space)
        for member, _ in seized.members:
            self._trapped.priority.above_task(member)
        if before:
            return self._tracees.tasks.get(tid)
        if seized.refused:
            space.leave_unprotected(self._tracees.journal)
            tracer = status["TracerPid"]
            reason = f"it is traced by process {tracer}" if tracer != "0" else "the kernel refuses ptrace of it"
            self._tracees.policy.not_protected(tgid, reason)
        else:
            self._counts.attached += len({process for _, process in seized.members})
        task = self._tracees.tasks.get(tid)
        if task is not None:
            self._tracees.policy.executes(task)  # of which nobody has heard, as it was not traced then
        return task

    def _prepare(self, notification: seccomp.Notification, task: Task) -> None:
        """Stop the caller of a lock before it locks, prepare its process, and let it call again."""
        ptrace.interrupt(task.tid)
        seccomp.refuse(self._listener, notification, ERESTARTNOINTR)
        stop = wait.await_stop(task.tid)
        new, gone = task.space.is_unheld, False
        try:
            if new:
                self._protection.protect(task)
            self._protection.add_filter(task)
        except TaskGone:
            # If that was a helper task of ours, the next notification tries again. If it was the caller, or another
            # thread has got its tid by exec, its stop is none of what has the tid now.
            gone = wait.has_news(task.tid)
        except Exception as error:
            # It is not tried again: the call that begins anew would end here as well.
            self._tracees.failed(task.tgid, error)
            if task.space.is_unheld:
                task.space.leave_unprotected(self._tracees.journal)
            else:
                task.filter_two = FilterTwo.REFUSED
        tasks = self._tracees.tasks
        for other in task.space.tids:
            # of a process that shares the memory by vfork, or a thread with other filters: at its next stop
            with contextlib.suppress(*GONE):
                if self._protection.can_get_filter(tasks[other]):
                    self._tracees.restarts.interrupt(tasks[other])
        try:
            if not gone:
                self._tracees.on_stop(stop)  # which lets the task go on
        finally:
            if new:
                self._protection.entrust(task)  # soon enough: the call that locks comes to us once more


def _wants_seccomp(call: Call) -> bool:
    return call.name == "seccomp" or (call.name == "prctl" and call.arguments[0] == PR_SET_SECCOMP)


def _locks_or_maps(call: Call) -> bool:
    """Whether a notified call may make memory sensitive: i386's old mmap is notified whatever its flags are."""
    return call.locks or call.name == "mmap"

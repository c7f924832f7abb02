# SPDX-License-Identifier: MIT
"""The supervisor's loop: notifications of filter one, stops of the tasks it traces, their ends, and its parent.

It is one thread. Every event is handled to its end before the next is looked at, so there is one order of things:
the tables here change only between events.
"""

import contextlib
import errno
import os
import resource
import select
import signal
import stat
from collections import deque
from collections.abc import Callable
from time import monotonic_ns

from mlockwipe.linux import prctl, procfs, ptrace, seccomp, signalfd, signals
from mlockwipe.linux.arch.x86_64 import I386, PAGE_SIZE, X86_64
from mlockwipe.supervisor import attach
from mlockwipe.supervisor.address_space import AddressSpace, Family, Pending
from mlockwipe.supervisor.burst import Burst
from mlockwipe.supervisor.calls import Call, decode
from mlockwipe.supervisor.control import Channel
from mlockwipe.supervisor.filters import CLONE_UNTRACED, filter_two
from mlockwipe.supervisor.inject import WALL, TaskGone, await_stop
from mlockwipe.supervisor.interrupted import made_to_restart
from mlockwipe.supervisor.journal import Journal, SaveArea
from mlockwipe.supervisor.keeper import Keeper, end_task
from mlockwipe.supervisor.newborn import is_helper, orphan, share_memory
from mlockwipe.supervisor.options import Options
from mlockwipe.supervisor.program import SETUID_SENTENCE
from mlockwipe.supervisor.report import Report, cause_of
from mlockwipe.supervisor.task import Task, TaskState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mlockwipe.audit.auditor import Auditor

# Not WCONTINUED: of a traced task that would take the news away from its parent, which may wait for it.
_STOPS = os.WSTOPPED | os.WNOHANG | WALL
_ANYTHING = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL
_ENDS = frozenset((os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED))
_JOB_CONTROL = frozenset((signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
_LOCKS = frozenset(("mlock", "mlock2", "mlockall", "mmap"))
_GONE = (ProcessLookupError, FileNotFoundError, TaskGone)
_BRIEFLY = 150_000  # ns
_MUNMAP = X86_64.numbers["munmap"]
_ERESTARTSYS, _ERESTARTNOINTR = 512, 513
_NOTIFIED_CALLS = ("mlock", "mlock2", "mlockall", "mmap", "prctl", "seccomp")
_NOTIFIED = {
    False: frozenset(X86_64.numbers[name] for name in _NOTIFIED_CALLS),
    True: frozenset(I386.numbers[name] for name in (*_NOTIFIED_CALLS, "old_mmap")),
}
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
SIGNALS = (signal.SIGCHLD, *_FORWARDED)  # to be blocked by whoever runs a supervisor


class Supervisor:
    """Everything that is known of the program and its descendants."""

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
        self._guardian = guardian
        self._journal = journal
        self._save_area = save_area
        self._report = report
        self._program = program
        self._program_ended = False
        self._program_stopped = False
        self._strict = options.strict
        self._unmap = options.unmap
        self._verbose = options.verbosity > 0
        self._auditor = _auditor(options.audit, self._say)
        self._front_pid = front_pid
        self._tasks: dict[int, Task] = {}
        self._keepers: dict[int, AddressSpace] = {}
        self._halted: set[int] = set()  # keepers in their exit stop
        self._newborn: set[int] = set()  # traced and in their first stop; the event of their parent is to come
        self._filter_two = filter_two(unmap=options.unmap)
        self._ended: deque[tuple[int, Family]] = deque(maxlen=64)  # the last that were released, by stack
        self._inherited_filters = int(procfs.status_field(os.getpid(), "Seccomp_filters"))
        self._said: set[str] = set()
        self._burst = Burst()
        self._single_cpu = len(os.sched_getaffinity(0)) == 1
        self._signals = signalfd.open_signalfd(SIGNALS)
        # each address space takes four descriptors
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        prctl.set_undumpable()
        seccomp.wake_synchronously(listener)

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
            for fd, events in poll.poll(0 if self._burst.on else -1):
                if fd == self._signals:
                    self._forward_signals()
                elif fd == self._listener:
                    if events & select.EPOLLIN:
                        self._on_notification()
                    else:
                        poll.unregister(fd)  # no task is left that has the filter
                elif fd == front and self._front_is_gone():
                    poll.unregister(fd)
        poll.close()
        self._write_report(final=True)

    def _handle_children(self) -> bool:
        """Everything that waits to be told of our children: False when there is none left."""
        while True:
            try:
                found = self._burst.next()
            except ChildProcessError:
                return False
            if found is None:
                if self._newborn:
                    self._adopt_lost()
                if self._program_stopped:
                    self._look_for_continued()
                return True
            if found.si_code in _ENDS:
                stop = _next_stop()  # every stop comes before any end
                if stop is None:
                    self._handle_end(found)
                    continue
                found = stop
            elif found.si_status != ptrace.SECCOMP_STOP or found.si_pid not in self._tasks:
                _next_stop(os.P_PID, found.si_pid)
            # Otherwise not waited for: letting the task go on takes the news of its stop back (ptrace_resume in
            # kernel/ptrace.c).
            self._on_stop(found.si_pid, found.si_status, found.si_code)
            self._burst.stop_handled()

    def _handle_end(self, end: os.waitid_result) -> None:
        self._on_exit(end.si_pid, end.si_status, end.si_code)
        if end.si_pid == self._program:
            self._journal.note_end(end.si_status, end.si_code)
        os.waitid(os.P_PID, end.si_pid, os.WEXITED | os.WNOHANG | WALL)
        if end.si_pid == self._program:
            self.program_has_ended(end.si_status, end.si_code)

    def _look_for_continued(self) -> None:
        """The program was stopped: if it is not traced, has it been continued?"""
        if self._program not in self._tasks and os.waitid(os.P_PID, self._program, os.WCONTINUED | os.WNOHANG):
            self._tell_front_of_job_control(None)

    def _forward_signals(self) -> None:
        for info in signalfd.read_signals(self._signals):
            if info.code == signalfd.SI_KERNEL:
                continue  # from the terminal, before we left the program's group: the program has it too
            if info.signal != signal.SIGCHLD and not self._program_ended:
                with contextlib.suppress(PermissionError):  # it has changed its user, as nobody but root could
                    os.kill(self._program, info.signal)

    def _front_is_gone(self) -> bool:
        assert self._front is not None
        if self._front.receive() is not None:
            return False  # `apart`, for a supervisor that was killed before it took that
        self._front = None
        if not self._program_ended:
            os.kill(self._program, signal.SIGKILL)  # whoever killed the front meant the program
        return True

    def program_has_ended(self, status: int, code: int) -> None:
        """The command is dead and reaped: tell the front, which may go."""
        if self._program_ended:
            return
        self._program_ended = True
        if self._program_stopped:
            self._tell_front_of_job_control(None)  # it could not hear of the end
        exited = code == os.CLD_EXITED
        self._report.status = {"exit" if exited else "signal": status}
        if self._front_pid == 1:
            # process 1 takes everything with it: have it all dead and wiped before it goes
            self._end_all()
        last = not _has_children()
        if self._verbose:
            self._say("summary", self._report.summary())
        self._write_report(final=last)
        if self._front is not None:
            if last:
                self._front.send("ended")
            self._front.send("exited" if exited else "killed", status)

    def _end_all(self) -> None:
        for tid in [*self._tasks, *attach.children(os.getpid())]:
            if tid not in self._keepers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(tid, signal.SIGKILL)
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        while self._handle_children():
            poll.poll()
            signalfd.read_signals(self._signals)
            for child in attach.children(os.getpid()):
                if child not in self._keepers:
                    os.kill(child, signal.SIGKILL)

    def _write_report(self, *, final: bool) -> None:
        try:
            self._report.write(final=final)
        except OSError as error:
            self._say("report", f"the report can't be written: {error}")

    def _say(self, key: str, text: str) -> None:
        """Tell the user, once."""
        if key not in self._said:
            self._said.add(key)
            if self._front is not None:
                self._front.send("say", text)

    # -- stops --------------------------------------------------------------------------------------------------

    def _on_stop(self, tid: int, status: int, code: int) -> None:
        task = self._tasks.get(tid)
        if task is None:
            self._on_stop_of_other(tid, status, code)
            return
        try:
            event = status >> 8
            if status == ptrace.SECCOMP_STOP:
                self._on_trapped_call(task)
            elif status == ptrace.SYSCALL_STOP:
                self._call_returned(task)
                ptrace.cont(tid)
            elif event in (ptrace.EVENT_FORK, ptrace.EVENT_VFORK, ptrace.EVENT_CLONE):
                with contextlib.suppress(*_GONE):  # of the child
                    self._adopt(ptrace.get_event_message(tid), task, event)
                ptrace.cont(tid)
            elif event == ptrace.EVENT_EXEC:
                self._on_exec(task, ptrace.get_event_message(tid))
                ptrace.cont(tid)
            else:
                self._resume(task, status)
        except _GONE:
            # killed in the stop: its end is reported like any other; or another task was, that this was about
            with contextlib.suppress(ProcessLookupError):
                ptrace.cont(tid)
        except OSError as error:
            self._trouble(task.tgid, error)
            with contextlib.suppress(ProcessLookupError):
                ptrace.cont(tid)

    def _trouble(self, tgid: int, error: OSError) -> None:
        """Something of one process can't be done: no reason to end, and all others with it."""
        self._not_protected(tgid, f"the kernel refuses what that needs: {error}")

    def _on_stop_of_other(self, tid: int, status: int, code: int) -> None:
        keeper = self._keepers.get(tid)
        if keeper is not None:
            assert keeper.keeper is not None
            # In its exit stop, killed by somebody, it stays and holds the memory. SIGSTOP can't be blocked, but a
            # keeper has nothing to stop.
            if status >> 8 == ptrace.EVENT_EXIT:
                self._halted.add(tid)
                self._release_if_halted(keeper)
                return
            with contextlib.suppress(ProcessLookupError):
                ptrace.cont(tid)
        elif code == os.CLD_TRAPPED and status >> 8 == ptrace.EVENT_EXEC:
            # The first thread had ended before we traced the process; another has got its tid by exec.
            with contextlib.suppress(ProcessLookupError):
                former = self._tasks.get(ptrace.get_event_message(tid))
                if former is not None:
                    self._on_exec(Task(tid, former.tgid, former.space, former.filtered), former.tid)
                ptrace.cont(tid)
        elif code == os.CLD_TRAPPED:
            self._newborn.add(tid)
        elif tid == self._program:
            self._tell_front_of_job_control(status)

    def _resume(self, task: Task, status: int) -> None:
        """Let a task go on from a stop on its way to user space, as the stop demands."""
        if task.state is TaskState.NOTIFIED:
            self._call_returned(task)
        self._add_filter(task)
        event, number = status >> 8, status & 0xFF
        if event == ptrace.EVENT_STOP and number in _JOB_CONTROL:
            task.state = TaskState.GROUP_STOPPED
            ptrace.listen(task.tid)
            if task.tid == self._program:
                self._tell_front_of_job_control(number)
            return
        if task.state is TaskState.GROUP_STOPPED:
            task.state = TaskState.RUNNING
            if task.tid == self._program:
                self._tell_front_of_job_control(None)
        if event == 0:
            self._restart_interrupted(task.tid)
            ptrace.cont(task.tid, number)
        else:
            ptrace.cont(task.tid)

    def _tell_front_of_job_control(self, stopped_by: int | None) -> None:
        """The program was stopped by a signal, or continued: so is the front, which the shell looks at.

        By signals from here, which arrive in their order; a front that stopped itself could do so too late.
        """
        again = self._program_stopped and stopped_by is not None  # a stop soon after a stop hides the news between
        self._program_stopped = stopped_by is not None
        if self._front is None:
            return
        if again or stopped_by is None:
            os.kill(self._front_pid, signal.SIGCONT)
        if stopped_by is not None:
            os.kill(self._front_pid, stopped_by if stopped_by in signals.STOPPING else signal.SIGSTOP)

    def _restart_interrupted(self, tid: int) -> None:
        """Keep a signal from turning a lock into EINTR, and one that the program ignores any other call.

        A notified call that nobody has received yet is interrupted by any signal and would be restarted only under
        SA_RESTART (85 of 2000 calls under a 300 us timer, Linux 6.18); mlock(2) knows no EINTR.
        """
        registers = ptrace.get_registers(tid)
        if registers.result == -_ERESTARTSYS and registers.orig_rax in _NOTIFIED[registers.is_compat]:
            registers.rax = (1 << 64) - _ERESTARTNOINTR
            ptrace.set_registers(tid, registers)
        elif made_to_restart(registers):
            ptrace.set_registers(tid, registers)

    # -- calls of filter two ------------------------------------------------------------------------------------

    def _on_trapped_call(self, task: Task) -> None:
        audit_arch, number, arguments = ptrace.get_syscall_entry(task.tid)
        space = task.space
        if number == _MUNMAP and audit_arch == X86_64.audit_arch:  # by far the most frequent, and mostly not ours
            start, length = arguments[:2]
            if not space.future and not space.ranges.overlaps(start, start + length + PAGE_SIZE):
                ptrace.cont(task.tid)
                return
        try:
            call = decode(audit_arch, number, arguments, space.memory_fd)
        except (KeyError, OSError):  # not ours, or arguments in memory that is not there
            ptrace.cont(task.tid)
            return
        if call.name in ("clone", "clone3"):
            self._clear_untraced(task, call)
        elif not space.ranges:
            space.program_break = None  # not followed while there is nothing to protect
        elif self._begin(task, call):
            task.state = TaskState.IN_CALL
            ptrace.cont_to_syscall_stop(task.tid)
            self._await_briefly(task)
            return
        ptrace.cont(task.tid)

    def _await_briefly(self, task: Task) -> None:
        """Look for the stop at the end of a call that takes microseconds as a rule, instead of sleeping for it.

        Not for longer: a call can depend on another task of the program, of a userfaultfd or FUSE, that waits for us.
        """
        if self._single_cpu:
            return
        deadline = monotonic_ns() + _BRIEFLY
        try:
            while (stop := os.waitid(os.P_PID, task.tid, os.WSTOPPED | os.WNOHANG | WALL)) is None:
                os.sched_yield()  # to the task, if it was woken on this CPU
                if monotonic_ns() > deadline:
                    return
        except ChildProcessError:  # it is dead
            return
        self._on_stop(task.tid, stop.si_status, stop.si_code)

    def _begin(self, task: Task, call: Call) -> bool:
        """Do what a call demands at its entry: False if its return is of no interest."""
        pending = self._wiping(task, call)
        if pending is None:
            return False
        growing = call.name == "brk" and call.arguments[0] > task.space.heap_end
        future = call.name in ("mmap", "munlockall") and task.space.future
        if not (pending.taken or pending.put or pending.saved or pending.wiped_pages or growing or future):
            return False
        task.pending = pending
        return True

    def _wiping(self, task: Task, call: Call) -> Pending | None:
        if self._auditor is not None:
            self._auditor.entered(task, call)
        try:
            pending = task.space.begin(call, task.tid, self._save_area)
            failure = pending.failure
        except OSError as error:
            pending, failure = None, error
        if failure is not None:
            self._not_protected(task.tgid, f"pages released by {call.name} could not be wiped: {failure}")
        if pending is not None and pending.wiped_pages:
            self._report.wiped[call.name] += pending.wiped_pages
        return pending

    def _call_returned(self, task: Task) -> None:
        task.state = TaskState.RUNNING
        pending, task.pending = task.pending, None
        if pending is not None:
            result = ptrace.get_registers(task.tid).result
            try:
                if task.space.end(pending, result, self._save_area):
                    task.space.record(self._journal)
            except OSError as error:
                self._not_protected(task.tgid, f"what came of {pending.call.name} could not be found out: {error}")
            if self._auditor is not None:
                self._auditor.returned(task, pending.call, result)

    def _clear_untraced(self, task: Task, call: Call) -> None:
        """A child made with CLONE_UNTRACED would have filter two and no tracer: every trapped call would fail."""
        if call.name == "clone":
            registers = ptrace.get_registers(task.tid)
            register = "rbx" if registers.is_compat else "rdi"
            setattr(registers, register, getattr(registers, register) & ~CLONE_UNTRACED)
            ptrace.set_registers(task.tid, registers)
        elif task.space.memory_fd != -1:
            address = call.arguments[0]  # struct clone_args begins with 64 bits of flags
            with contextlib.suppress(OSError):
                flags = int.from_bytes(os.pread(task.space.memory_fd, 8, address), "little")
                if flags & CLONE_UNTRACED:
                    os.pwrite(task.space.memory_fd, (flags & ~CLONE_UNTRACED).to_bytes(8, "little"), address)

    # -- calls of filter one ------------------------------------------------------------------------------------

    def _on_notification(self) -> None:
        self._burst.end()  # which would not hear of the next one
        notification = seccomp.receive(self._listener)
        if notification is None:
            return
        try:
            self._answer(notification)
        except _GONE:
            # killed meanwhile, or this is about a task of its process that was: if it still waits, it goes on
            seccomp.let_go_on(self._listener, notification)
        except OSError as error:
            self._trouble(notification.tid, error)
            call = decode(notification.audit_arch, notification.number, notification.arguments, -1)
            self._let_go_on_unprotected(notification, call)

    def _answer(self, notification: seccomp.Notification) -> None:
        tid = notification.tid
        task = self._tasks.get(tid)
        memory_fd = task.space.memory_fd if task else -1
        call = decode(notification.audit_arch, notification.number, notification.arguments, memory_fd)
        if call.name == "seccomp":
            self._say(
                "listener",
                f"process {tid} wants a seccomp notification listener of its own, and the kernel allows one only: "
                "the call fails with EBUSY",
            )
            seccomp.let_go_on(self._listener, notification)
            return
        if task is None:
            task = self._attach(tid)
            if not seccomp.is_pending(self._listener, notification):
                return  # it was killed, and the tid may be another's by now
        if task is None or task.space.unprotected:
            self._let_go_on_unprotected(notification, call)
        elif task.space.keeper is None or not task.filtered:
            self._prepare(notification, task)  # the call is restarted, and notified again
        else:
            self._let_lock(notification, task, call)

    def _let_go_on_unprotected(self, notification: seccomp.Notification, call: Call) -> None:
        if self._strict and call.name in _LOCKS:
            seccomp.refuse(self._listener, notification, errno.EPERM)
        else:
            seccomp.let_go_on(self._listener, notification)

    def _let_lock(self, notification: seccomp.Notification, task: Task, call: Call) -> None:
        if self._auditor is None and call.name in ("mlock", "mlock2") and task.space.lock_unwatched(call):
            task.space.record(self._journal)
        elif call.name in _LOCKS:
            task.pending = self._wiping(task, call)
            if task.pending is not None:
                task.state = TaskState.NOTIFIED
                # Asked for while the call waits, which is a killable wait by now, the stop comes when it is done.
                ptrace.interrupt(task.tid)
                seccomp.let_go_on(self._listener, notification)
                self._await_briefly(task)
                return
        seccomp.let_go_on(self._listener, notification)

    def _attach(self, tid: int) -> Task | None:
        """Trace all tasks of a process, and of the process whose memory it borrows by vfork. None: refused."""
        status = procfs.Status(tid)
        tgid = int(status["Tgid"])
        space = AddressSpace()
        seized = attach.seize_sharing(tgid, int(status["PPid"]))
        for member, process in seized.members:
            self._tasks[member] = Task(member, process, space)
            space.tids.add(member)
        if seized.refused:
            space.unprotected = True
            tracer = status["TracerPid"]
            self._not_protected(
                tgid,
                f"it is traced by process {tracer}" if tracer != "0" else "the kernel refuses ptrace of it",
            )
        else:
            self._report.attached += len({process for _, process in seized.members})
        return self._tasks.get(tid)

    def _prepare(self, notification: seccomp.Notification, task: Task) -> None:
        """Stop the caller of a lock before it locks, prepare its process, and let it call again."""
        ptrace.interrupt(task.tid)
        seccomp.refuse(self._listener, notification, _ERESTARTNOINTR)
        status = await_stop(task.tid)
        new = task.space.keeper is None
        try:
            if new:
                self._protect(task)
            self._add_filter(task)
        except TaskGone:
            pass  # if that was a helper task of ours, the next notification tries again
        for other in task.space.tids:
            if not self._tasks[other].filtered:
                # of a process that shares the memory by vfork, or a thread with other filters: at its next stop
                with contextlib.suppress(ProcessLookupError):
                    ptrace.interrupt(other)
        try:
            self._resume(task, status)
        finally:
            if new:
                self._entrust(task.space.keeper)  # soon enough: the call that locks comes to us once more

    def _protect(self, task: Task, like: Keeper | None = None) -> None:
        """Give the address space of a stopped task its keeper, and its process filter two."""
        space = task.space
        try:
            status = procfs.Status(task.tid)
            if int(status["Seccomp_filters"]) > self._inherited_filters + (2 if task.filtered else 1):
                raise OSError("it has seccomp filters of its own, which may kill it for a call that a keeper needs")
            space.keeper = Keeper.create(task.tid, status, None if task.filtered else self._filter_two, like)
        except _GONE:
            raise TaskGone(task.tid) from None
        except OSError as error:
            space.unprotected = True
            self._not_protected(task.tgid, str(error))
            return
        if not task.filtered:
            self._has_got_filter(task, whole_process=space.keeper.whole_process)
        self._keepers[space.keeper.pid] = space
        if like is None:
            space.stack_top = procfs.stack_top(task.tid)
        space.enter(self._journal)

    def _entrust(self, keeper: Keeper | None) -> None:
        """Give the guardian what shows a keeper's memory, which it could not open itself if it is undumpable."""
        if self._guardian is not None and keeper is not None:
            files = keeper.files
            self._guardian.send("keeper", keeper.pid, fds=(files.memory, files.pagemap, files.maps))

    def _add_filter(self, task: Task) -> None:
        """Add filter two to the process of a stopped task, if it is not there."""
        keeper = task.space.keeper
        if task.filtered or keeper is None:
            return
        try:
            whole_process = keeper.add_filter(task.tid, procfs.Status(task.tid), self._filter_two)
        except _GONE:
            raise TaskGone(task.tid) from None
        except OSError as error:
            task.space.unprotected = True
            self._not_protected(task.tgid, str(error))
            return
        self._has_got_filter(task, whole_process=whole_process)

    def _has_got_filter(self, task: Task, *, whole_process: bool) -> None:
        task.filtered = True
        if whole_process:
            for other in task.space.tids:
                if self._tasks[other].tgid == task.tgid:
                    self._tasks[other].filtered = True

    def _not_protected(self, tgid: int, reason: str) -> None:
        program = procfs.executable(tgid)
        self._report.unprotected[program, reason] += 1
        if self._auditor is not None:
            self._auditor.not_audited(program)
        verb = "its lock is refused" if self._strict else "it goes on"
        self._say(f"{program} {reason}", f"{program} (process {tgid}) can't be protected, {verb}: {reason}")

    # -- births, exec and ends ----------------------------------------------------------------------------------

    def _adopt(self, child: int, parent: Task, event: int) -> None:
        """A task of ours has made another, which waits in its first stop or will be there soon."""
        if child in self._tasks:
            return
        if child in self._newborn:
            self._newborn.discard(child)
        else:
            await_stop(child)
        try:
            tgid = int(procfs.status_field(child, "Tgid"))
            shares = tgid == parent.tgid or share_memory(child, parent, event)
        except OSError as error:
            if not isinstance(error, _GONE):
                os.kill(child, signal.SIGKILL)  # nothing is known of it, and without us it can't go on
            raise
        if shares:
            space = parent.space
        else:
            parent.space.ask_for_unwatched()
            space = AddressSpace(parent.space.family)
            space.inherit(parent.space.ranges, parent.space.program_break, parent.space.stack_top)
            if self._auditor is not None:
                self._auditor.forked(parent.space, space, tgid)
        self._welcome(Task(child, tgid, space, parent.filtered), parent.space.keeper)

    def _adopt_lost(self) -> None:
        """Newborns whose maker was killed before the kernel told of them: an orphan's parent is somebody else now."""
        for child in list(self._newborn):
            with contextlib.suppress(*_GONE):
                if int(procfs.status_field(child, "PPid")) in self._tasks:
                    continue
                self._newborn.discard(child)
                if is_helper(child):
                    end_task(child)  # of a keeper that was being made when its program was killed
                    continue
                space = orphan(child, self._keepers.values(), self._ended, lambda space: space.ranges)
                self._welcome(Task(child, int(procfs.status_field(child, "Tgid")), space, True), None)

    def _welcome(self, task: Task, parent_keeper: Keeper | None) -> None:
        self._tasks[task.tid] = task
        task.space.tids.add(task.tid)
        try:
            if task.space.ranges and task.space.keeper is None and not task.space.unprotected:
                self._protect(task, parent_keeper)
                self._entrust(task.space.keeper)
                if task.space.keeper is not None:
                    task.space.forget_unmapped()
                    task.space.record(self._journal)
        finally:
            ptrace.cont(task.tid)

    def _on_exec(self, task: Task, former_tid: int) -> None:
        """A process has begun a new program: all its threads but this one are gone, and so is its memory."""
        space = task.space
        if self._auditor is not None:
            self._auditor.gone(task.tgid)
        for other in [other for other in space.tids if self._tasks[other].tgid == task.tgid]:
            self._forget(other)
        self._forget(former_tid)
        task = Task(task.tid, task.tgid, AddressSpace(), task.filtered)
        self._tasks[task.tid] = task
        task.space.tids.add(task.tid)
        if not space.tids:
            self._release(space, "exec")
        self._look_for_setuid(task)

    def _look_for_setuid(self, task: Task) -> None:
        """Say once that a program runs without the privilege that its file would give it."""
        try:
            mode = os.stat(f"/proc/{task.tid}/exe").st_mode
            if mode & (stat.S_ISUID | stat.S_ISGID) and procfs.status_field(task.tid, "NoNewPrivs") == "1":
                program = os.readlink(f"/proc/{task.tid}/exe")
                self._say("setuid", SETUID_SENTENCE.format(program))
        except OSError:
            pass  # gone, or no right to look

    def _on_exit(self, tid: int, status: int, code: int) -> None:
        """A task is dead and not yet reaped: its parent hears of it when we have wiped, not before."""
        self._newborn.discard(tid)
        keeper_of = self._keepers.get(tid)
        if keeper_of is not None:
            self._lost_keeper(tid, keeper_of)
            return
        task = self._tasks.get(tid)
        if task is None:
            return
        self._forget(tid)
        if self._auditor is not None and all(self._tasks[other].tgid != task.tgid for other in task.space.tids):
            self._auditor.gone(task.tgid)
        if not task.space.tids:
            self._release(task.space, cause_of(status, code))
        elif task.space.keeper is not None:
            self._release_if_halted(task.space)

    def _release_if_halted(self, space: AddressSpace) -> None:
        """A keeper was killed, and halts in its exit stop. If it alone is left to use the memory, release that now.

        Process 1 of a PID namespace kills all others there when it ends, keepers too, and is not dead before they are
        (zap_pid_ns_processes in kernel/pid_namespace.c).
        """
        assert space.keeper is not None
        if space.keeper.pid in self._halted and not procfs.have_memory(space.tids):
            for tid in list(space.tids):
                self._forget(tid)
            self._release(space, "SIGKILL")

    def _forget(self, tid: int) -> None:
        task = self._tasks.pop(tid, None)
        if task is None:
            return
        task.space.tids.discard(tid)
        if task.pending is not None:
            task.space.abandon(task.pending, self._save_area)
            task.pending = None

    def _release(self, space: AddressSpace, cause: str) -> None:
        if self._auditor is not None:
            self._auditor.ended(space, cause)
        pid = space.keeper.pid if space.keeper else None
        if pid is not None:
            self._ended.append((space.stack_top, space.family))
        try:
            pages = space.release(self._journal, unmap_trapped=self._unmap)
        except OSError as error:
            self._not_protected(pid or 0, f"pages released by {cause} could not be wiped: {error}")
        else:
            if pages:
                self._report.wiped[cause] += pages
        if pid is not None:
            del self._keepers[pid]
            self._halted.discard(pid)
            if self._guardian is not None:
                self._guardian.send("gone", pid)

    def _lost_keeper(self, pid: int, space: AddressSpace) -> None:
        """Somebody killed a keeper, and it got past its exit stop: its memory is no longer held."""
        del self._keepers[pid]
        space.lose_keeper(self._journal)
        self._not_protected(pid, "its keeper was killed")


def _auditor(path: str | None, say: Callable[[str, str], None]) -> "Auditor | None":
    if path is None:
        return None
    from mlockwipe.audit.auditor import Auditor  # `run` does without

    return Auditor(path, say)


def _next_stop(kind: int = os.P_ALL, pid: int = 0) -> os.waitid_result | None:
    try:
        return os.waitid(kind, pid, _STOPS)
    except ChildProcessError:  # raised also when all of them are zombies
        return None


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, _ANYTHING)
    except ChildProcessError:
        return False
    return True

# SPDX-License-Identifier: MIT
"""Tracing programs that run already: a keeper in each, and what they have locked is wiped when they are gone.

No seccomp filter is ever added, because none can be taken away again, and a call that a filter wants to have traced
fails once the tracer is gone. So nothing is seen of locks and releases in a living process: what is locked is asked
of the kernel when the memory is released as a whole, at exit, exec or death. In exchange the programs can be left
as they were.

They are left by ending: the kernel then lets go of every task without stopping it. So no call is interrupted, and a
task that is in a ptrace stop goes on by itself. A signal that it has stopped for is delivered then only if nobody
has waited for that stop. Therefore stops are looked at here (WNOWAIT) and not waited for, wherever a signal could be
lost: not even the death of this process by SIGKILL costs a program one.
"""

import contextlib
import os
import resource
import select
import signal
import stat
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic

from mlockwipe.linux import kcmp, procfs, ptrace, signalfd
from mlockwipe.linux.arch.x86_64 import TASK_SIZE
from mlockwipe.supervisor import attach, wipe
from mlockwipe.supervisor.address_space import AddressSpace, Family
from mlockwipe.supervisor.attachable import NotAttached, check, name_of, why_refused
from mlockwipe.supervisor.foreign import OPTIONS, AtOurMercy
from mlockwipe.supervisor.inject import WALL, TaskGone, await_stop
from mlockwipe.supervisor.interrupted import restart_interrupted_call
from mlockwipe.supervisor.journal import Journal
from mlockwipe.supervisor.keeper import Keeper, end_task
from mlockwipe.supervisor.newborn import is_helper, orphan, share_memory
from mlockwipe.supervisor.ranges import RangeSet
from mlockwipe.supervisor.report import Report, cause_of
from mlockwipe.supervisor.task import Task

_STOP = os.WSTOPPED | os.WNOHANG | os.WNOWAIT | WALL
_ANYTHING = _STOP | os.WEXITED
_ENDS = frozenset((os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED))
_JOB_CONTROL = frozenset((signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
_MAKING = frozenset((ptrace.EVENT_FORK, ptrace.EVENT_VFORK, ptrace.EVENT_CLONE))
_GONE = (ProcessLookupError, FileNotFoundError, TaskGone)
_PERIOD = 1.0  # seconds from one look at the machine to the next
_QUIET = 20  # milliseconds
_ATTEMPTS = 3  # to give an address space its keeper
_AT_ONCE = 64  # events, before signals to this process are looked at
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Attached:
    """The programs that are attached to, and their descendants from then on."""

    def __init__(self, report: Report, say: Callable[[int, str], None], *, all_memory: bool = False) -> None:
        """`say(verbosity, sentence)` tells the user. `all_memory`: not only locked memory counts as sensitive."""
        self._report = report
        self._say = say
        self._all_memory = all_memory
        self._tasks: dict[int, Task] = {}
        self._keepers: dict[int, AddressSpace] = {}
        self._halted: set[int] = set()  # keepers in their exit stop
        self._newborn: set[int] = set()  # in their first stop; the event of their maker is to come
        self._ended: deque[tuple[int, Family]] = deque(maxlen=64)  # the last that were released, by stack
        self._first: set[AddressSpace] = set()  # those that the user has named, until they are covered
        self._failures: Counter[AddressSpace] = Counter()  # in giving a keeper
        self._journal = Journal()  # stays empty: nobody takes over
        self._own_filters = int(procfs.status_field(os.getpid(), "Seccomp_filters"))
        self._said: set[str] = set()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as it may be inherited, it lets nobody be waited for
        watched = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]  # nohup(1)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, *watched])
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # while we are stopped, programs wait for us
        self._signals = signalfd.open_signalfd((signal.SIGCHLD, *watched))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each address space takes four descriptors

    # -- attaching ----------------------------------------------------------------------------------------------

    def attach(self, pid: int) -> None:
        """Trace a process from now on. NotAttached when that can't be; what becomes known later is said."""
        if pid in self._tasks:
            return
        try:
            status = procfs.Status(pid)
            check(pid, status)
            family = (int(status["PPid"]), *_children(pid))
            space = AddressSpace()
            space.family.forked = True  # before our time, for all we know
            space.stack_top = procfs.stack_top(pid)
        except (FileNotFoundError, ProcessLookupError):
            raise NotAttached("does not exist") from None
        seized = attach.seize_sharing(pid, *family, options=OPTIONS)
        for tid, process in seized.members:
            self._tasks[tid] = Task(tid, process, space)
            space.tids.add(tid)
        if seized.refused:
            space.unprotected = True  # a thread of it may be traced, and is let go of with everything at the end
            raise NotAttached(why_refused(status))
        if not seized.members:
            raise NotAttached("does not exist any more")
        self._first.add(space)
        self._ask_for_stop(space)

    def _ask_for_stop(self, space: AddressSpace) -> None:
        """Have one task stop, to make the keeper; a parent that waits for its vfork child can't."""
        for tid in sorted(space.tids, key=_is_deep_asleep):
            with contextlib.suppress(ProcessLookupError):
                ptrace.interrupt(tid)
                return

    @property
    def any_left(self) -> bool:
        """Whether there is a task that is or may be covered.

        When all that are known are dead, a child of one of them may not have come to its first stop yet.
        """
        if not self._tasks:
            return _has_tracees()
        return any(not task.space.unprotected for task in self._tasks.values())

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, look: Callable[[], None] | None = None) -> bool:
        """Until no task is left, or a signal asks to end, which makes it False. Then everything is let go of.

        `look` is called every second, and then it does not end by itself.
        """
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        due = 0.0
        try:
            while True:
                if look is not None and monotonic() >= due:
                    look()
                    due = monotonic() + _PERIOD
                busy = self._handle_tasks()
                if look is None and not self.any_left:
                    return True
                if not busy:
                    poll.poll(None if look is None else max(0.0, due - monotonic()) * 1000)
                if any(info.signal != signal.SIGCHLD for info in signalfd.read_signals(self._signals)):
                    return False
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """End the keepers. The programs are let go of by the kernel, when this process ends."""
        deadline = monotonic() + _PERIOD  # a program that forks without end has always more to tell
        while self._handle_tasks() and monotonic() < deadline:
            pass
        for space in list(self._keepers.values()):
            assert space.keeper is not None
            space.keeper.let_go()
            space.keeper, space.unprotected = None, True
        self._keepers.clear()
        # A program that is itself the reaper of its keepers, as process 1 is, gets SIGCHLD for them.
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        deadline = monotonic() + _PERIOD
        while poll.poll(_QUIET) and monotonic() < deadline:
            signalfd.read_signals(self._signals)
            self._handle_tasks()

    def _handle_tasks(self) -> bool:
        """What waits to be told of the tasks; True when there may be more of it."""
        for _ in range(_AT_ONCE):
            try:
                found = os.waitid(os.P_ALL, 0, _ANYTHING)
            except ChildProcessError:
                return False
            if found is None:
                break
            if found.si_code in _ENDS:
                stop = _next_stop()  # every stop comes before any end
                if stop is None:
                    self._on_end(found)
                    continue
                found = stop
            self._on_stop(found.si_pid, found.si_status)
        else:
            return True
        if self._newborn:
            self._adopt_lost()
        return False

    # -- stops --------------------------------------------------------------------------------------------------

    def _on_stop(self, tid: int, status: int) -> None:
        task = self._tasks.get(tid)
        if task is None:
            self._on_stop_of_other(tid, status)
            return
        event = status >> 8
        try:
            if event in _MAKING:
                with contextlib.suppress(*_GONE):  # of the child
                    self._adopt(ptrace.get_event_message(tid), task, event)
                ptrace.cont(tid)
            elif event == ptrace.EVENT_EXEC:
                self._on_exec(task, ptrace.get_event_message(tid))
            else:
                self._resume(task, status)
        except _GONE:
            _take_news(tid)  # killed in the stop: its end is reported like any other

    def _on_stop_of_other(self, tid: int, status: int) -> None:
        _take_news(tid)
        event = status >> 8
        with contextlib.suppress(ProcessLookupError):
            if tid in self._keepers:
                # In its exit stop, killed by somebody, it stays and holds the memory.
                if event == ptrace.EVENT_EXIT:
                    self._halted.add(tid)
                    self._release_if_halted(self._keepers[tid])
                else:
                    ptrace.cont(tid)
            elif event == ptrace.EVENT_EXEC:
                # The first thread had ended before we traced the process; another has got its tid by exec.
                former = self._tasks.get(ptrace.get_event_message(tid))
                if former is not None:
                    self._on_exec(Task(tid, former.tgid, former.space), former.tid)
                else:
                    ptrace.cont(tid)
            else:
                self._newborn.add(tid)

    def _resume(self, task: Task, status: int) -> None:
        """Let a task go on from a stop on its way to user space, as the stop demands."""
        if task.space.keeper is None and not task.space.unprotected:
            if status >> 8 == ptrace.EVENT_STOP:
                status = self._protect(task, status)
            else:
                ptrace.interrupt(task.tid)  # a stop for a signal has used up the one that was asked for
        event, number = status >> 8, status & 0xFF
        stopped = event == ptrace.EVENT_STOP and number in _JOB_CONTROL
        if stopped:
            ptrace.listen(task.tid)
            _take_news(task.tid)
        else:
            if event == 0:
                # To a traced task the kernel brings even signals that will then be ignored.
                restart_interrupted_call(task.tid)
            # This takes the news of the stop back (ptrace_resume in kernel/ptrace.c).
            ptrace.cont(task.tid, number if event == 0 else 0)

    # -- protecting ---------------------------------------------------------------------------------------------

    def _protect(self, task: Task, status: int, like: Keeper | None = None) -> int:
        """Give the address space of a task, which is in a stop on its way to user space, its keeper.

        The status of the stop that the task is in then.
        """
        space = task.space
        try:
            restart_interrupted_call(task.tid)
            filters = int(procfs.status_field(task.tid, "Seccomp_filters"))
            mercy = AtOurMercy(task.tid, suspend_seccomp=filters > self._own_filters)
            space.keeper = Keeper.create_mortal(task.tid, like, mercy)
            status = mercy.status
        except _GONE:
            # It is dying, or a helper of ours was killed.
            self._failures[space] += 1
            if self._failures[space] < _ATTEMPTS:
                with contextlib.suppress(ProcessLookupError):
                    ptrace.interrupt(task.tid)
                return status
            self._not_protected(space, task.tgid, "its keeper was killed while it was made")
        except OSError as error:
            self._not_protected(space, task.tgid, error.strerror or str(error))
        else:
            self._keepers[space.keeper.pid] = space
            if space in self._first:
                self._report.attached += 1
                self._say(0, f"process {task.tgid} ({_program(task.tgid)}) is covered from now on")
                if not self._all_memory and not self._sensitive(space):
                    self._say(
                        0,
                        f"process {task.tgid} has nothing locked at present; whether it has inherited copies of "
                        "locked memory, as gpg-agent has, can't be told: --all-memory covers them",
                    )
        self._first.discard(space)
        del self._failures[space]
        return status

    def _not_protected(self, space: AddressSpace, pid: int, reason: str) -> None:
        space.unprotected = True
        program = _program(pid)
        self._report.unprotected[program, reason] += 1
        self._say_once(f"process {pid} ({program}) can't be covered: {reason}", f"{program} {reason}")

    def _say_once(self, text: str, key: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._say(0, text)

    def _sensitive(self, space: AddressSpace, tid: int = 0) -> RangeSet:
        """What is to be wiped if the memory is released now: what is locked, and what was inherited.

        `tid`: a task that is asked while there is no keeper yet.
        """
        if self._all_memory:
            return RangeSet([(0, TASK_SIZE)])
        ranges = space.ranges.copy()
        with contextlib.suppress(*_GONE):  # the keeper was killed
            pid = space.keeper.pid if space.keeper else tid
            if procfs.status_field(pid, "VmLck") != "0 kB":  # smaps takes longer, the more memory there is
                for start, end in wipe.locked_ranges(space.keeper.files) if space.keeper else _locked_by(tid):
                    ranges.add(start, end)
        return ranges

    # -- births, exec and ends ----------------------------------------------------------------------------------

    def _adopt(self, child: int, maker: Task, event: int) -> None:
        """A task of ours has made another, which waits in its first stop or will be there soon."""
        if child in self._tasks:
            return
        if child in self._newborn:
            self._newborn.discard(child)
        else:
            await_stop(child)
        tgid = int(procfs.status_field(child, "Tgid"))
        if tgid == maker.tgid or share_memory(child, maker, event):
            space = maker.space
        else:
            space = self._forked_from(maker)
            self._report.attached += 1
        self._welcome(Task(child, tgid, space), maker.space.keeper)

    def _forked_from(self, maker: Task) -> AddressSpace:
        parent = maker.space
        space = AddressSpace(parent.family)
        space.inherit(self._sensitive(parent, maker.tid), None, parent.stack_top)
        space.unprotected = parent.unprotected
        return space

    def _adopt_lost(self) -> None:
        """Newborns of whose maker no event has come by now: most likely it was killed before."""
        for child in list(self._newborn):
            self._newborn.discard(child)
            with contextlib.suppress(*_GONE):
                if is_helper(child):
                    end_task(child)  # of a keeper that was being made when its program was killed
                    continue
                tgid = int(procfs.status_field(child, "Tgid"))
                space = self._known_memory(child, tgid)
                space = space or orphan(child, self._keepers.values(), self._ended, self._sensitive)
                self._welcome(Task(child, tgid, space), None)

    def _known_memory(self, child: int, tgid: int) -> AddressSpace | None:
        for task in self._tasks.values():
            if task.tgid == tgid:
                return task.space
        for keeper, space in self._keepers.items():
            with contextlib.suppress(OSError):
                if kcmp.same_address_space(child, keeper):
                    return space
        return None

    def _welcome(self, task: Task, parent_keeper: Keeper | None) -> None:
        self._tasks[task.tid] = task
        task.space.tids.add(task.tid)
        try:
            if task.space.keeper is None and not task.space.unprotected:
                self._protect(task, 0, parent_keeper)
        finally:
            ptrace.cont(task.tid)

    def _on_exec(self, task: Task, former_tid: int) -> None:
        """A process has begun a new program: all its threads but this one are gone, and so is its memory.

        The new one gets its keeper at a stop on the way to its first instruction: what is set in the registers
        now, the end of execve overwrites.
        """
        space = task.space
        for other in [other for other in space.tids if self._tasks[other].tgid == task.tgid]:
            self._forget(other)
        self._forget(former_tid)
        new = Task(task.tid, task.tgid, AddressSpace())
        with contextlib.suppress(*_GONE):
            new.space.stack_top = procfs.stack_top(task.tid)
        self._tasks[new.tid] = new
        new.space.tids.add(new.tid)
        if not space.tids:
            self._release(space, new.tgid, "exec")
        self._look_for_setuid(new.tid)
        ptrace.interrupt(new.tid)
        ptrace.cont(new.tid)

    def _look_for_setuid(self, tid: int) -> None:
        """Say once that a program runs without the privilege that its file would give it."""
        with contextlib.suppress(OSError):
            mode = os.stat(f"/proc/{tid}/exe").st_mode
            if mode & (stat.S_ISUID | stat.S_ISGID) and os.geteuid() != 0:
                program = _program(tid)
                self._say_once(
                    f"{program} is set-user-ID or set-group-ID and runs without that privilege: the kernel gives it "
                    "to no program that is traced by an ordinary user",
                    program,
                )

    def _on_end(self, end: os.waitid_result) -> None:
        """A task is dead and not yet reaped: its parent hears of it when we have wiped, not before."""
        tid = end.si_pid
        self._newborn.discard(tid)
        keeper_of = self._keepers.get(tid)
        if keeper_of is not None:
            del self._keepers[tid]
            keeper_of.lose_keeper(self._journal)
            for member in keeper_of.tids:
                self._not_protected(keeper_of, self._tasks[member].tgid, "its keeper was killed")
                break
            return
        task = self._forget(tid)
        if task is not None and not task.space.tids:
            self._release(task.space, task.tgid, cause_of(end.si_status, end.si_code))
        elif task is not None and task.space.keeper is not None:
            self._release_if_halted(task.space)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | WALL)

    def _release_if_halted(self, space: AddressSpace) -> None:
        """A keeper was killed, and halts in its exit stop. If it alone is left to use the memory, release that now.

        Process 1 of a PID namespace kills all others there when it ends, keepers too, and is not dead before they are
        (zap_pid_ns_processes in kernel/pid_namespace.c).
        """
        assert space.keeper is not None
        if space.keeper.pid in self._halted and not procfs.have_memory(space.tids):
            dead = [self._forget(tid) for tid in list(space.tids)]
            self._release(space, next((task.tgid for task in dead if task), 0), "SIGKILL")

    def _forget(self, tid: int) -> Task | None:
        task = self._tasks.pop(tid, None)
        if task is not None:
            task.space.tids.discard(tid)
        return task

    def _release(self, space: AddressSpace, pid: int, cause: str) -> None:
        del self._failures[space]
        if space in self._first:
            self._first.discard(space)
            self._say(0, f"process {pid} was gone before it was covered")
        pages = 0
        if space.keeper is not None:
            keeper = space.keeper.pid
            self._ended.append((space.stack_top, space.family))
            try:
                try:
                    space.ranges = self._sensitive(space)
                finally:
                    pages = space.release(self._journal, unmap_trapped=True)
            except OSError as error:
                self._not_protected(
                    space, pid, f"pages released by {cause} could not be wiped: {error.strerror or error}"
                )
            del self._keepers[keeper]
            self._halted.discard(keeper)
            self._say(1, f"process {pid}: memory released by {cause}, {pages} pages wiped")
        else:
            space.release(self._journal, unmap_trapped=True)
        if pages:
            self._report.wiped[cause] += pages
            self._write_report()

    def _write_report(self) -> None:
        try:
            self._report.write(final=False)
        except OSError as error:
            self._say_once(f"the report can't be written: {error}", "report")


def _program(pid: int) -> str:
    path = procfs.executable(pid)
    return path if path != "?" else name_of(pid)


def _locked_by(pid: int) -> list[tuple[int, int]]:
    """What a task has locked, nothing if it does not let us see."""
    with contextlib.suppress(OSError):
        smaps = procfs.open_file(pid, "smaps")
        try:
            return wipe.locked_mappings(smaps)
        finally:
            os.close(smaps)
    return []


def _children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found = []
    for tid in procfs.tasks(pid):
        with contextlib.suppress(OSError):  # it has ended
            found += attach.children(pid, tid)
    return found


def _is_deep_asleep(tid: int) -> bool:
    try:
        return procfs.stat_fields(tid)[0] in "DZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _next_stop() -> os.waitid_result | None:
    try:
        return os.waitid(os.P_ALL, 0, _STOP)
    except ChildProcessError:  # raised also when all of them are zombies
        return None


def _has_tracees() -> bool:
    try:
        os.waitid(os.P_ALL, 0, _ANYTHING)
    except ChildProcessError:
        return False
    return True


def _take_news(tid: int) -> None:
    """Wait for a stop that has been looked at."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOHANG | WALL)

# SPDX-License-Identifier: MIT
"""waitid(2) of tasks that are traced, and what their stops mean, decoded once: a type for each kind of stop.

Most stops are only looked at here (WNOWAIT), not waited for. Letting the task go on takes the news of its stop back
(ptrace_resume in kernel/ptrace.c); and should the tracer die, a signal that a task has stopped for is delivered only
if nobody has waited for that stop.

Source: ptrace(2), include/uapi/linux/{wait,ptrace}.h, Linux 6.18.
"""

import errno
import os
from time import monotonic

from mlockwipe.linux import procfs

TYPE_CHECKING = False  # typing takes longer to import than the rest of this file
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WALL = 0x40000000  # __WALL: children of every kind, threads and those without an exit signal included

EVENT_FORK = 1
EVENT_VFORK = 2
EVENT_CLONE = 3
EVENT_EXEC = 4
EVENT_EXIT = 6
_EVENT_SECCOMP = 7
_EVENT_STOP = 128
BIRTHS = frozenset((EVENT_FORK, EVENT_VFORK, EVENT_CLONE))

_SIGTRAP = 5
_SECCOMP = _EVENT_SECCOMP << 8 | _SIGTRAP
_SYSCALL = 0x80 | _SIGTRAP
_EXEC = EVENT_EXEC << 8 | _SIGTRAP
_STOPPING = frozenset((19, 20, 21, 22))  # SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU
_ENDS = frozenset((os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED))

# Not WCONTINUED: of a traced task that would take the news away from its parent, which may wait for it.
_LOOK = os.WSTOPPED | os.WNOWAIT | WALL
_LOOK_AT_ALL = _LOOK | os.WEXITED
_LOOK_NOW = _LOOK | os.WNOHANG


class TaskGone(Exception):
    """The task died before it could do what was asked; its end is left for the tracer's loop to see."""


class Stop:
    """A task has stopped."""

    __slots__ = ("tid",)

    def __init__(self, tid: int) -> None:
        self.tid = tid


class SeccompStop(Stop):
    """At the entry of a call that a filter wants to have traced (SECCOMP_RET_TRACE)."""

    __slots__ = ()


class SyscallStop(Stop):
    """At the entry or exit of a call, asked for by PTRACE_SYSCALL, with PTRACE_O_TRACESYSGOOD."""

    __slots__ = ()


class EventStop(Stop):
    """`event`: EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC or EVENT_EXIT."""

    __slots__ = ("event",)

    def __init__(self, tid: int, event: int) -> None:
        self.tid = tid
        self.event = event


class SignalStop(Stop):
    """`signal` is about to be delivered; also the trap after a single step, as SIGTRAP."""

    __slots__ = ("signal",)

    def __init__(self, tid: int, signal: int) -> None:
        self.tid = tid
        self.signal = signal


class GroupStop(Stop):
    """Stopped by the job-control signal `signal`, with all its process."""

    __slots__ = ("signal",)

    def __init__(self, tid: int, signal: int) -> None:
        self.tid = tid
        self.signal = signal


class TrapStop(Stop):
    """PTRACE_EVENT_STOP for any other reason: PTRACE_INTERRUPT, birth, the end of a group stop."""

    __slots__ = ()


class UntracedStop(Stop):
    """A child of ours that is not traced was stopped by the job-control signal `signal`."""

    __slots__ = ("signal",)

    def __init__(self, tid: int, signal: int) -> None:
        self.tid = tid
        self.signal = signal


class End:
    """A task has ended and is not reaped. `status` and `code` as waitid(2) reports them in si_status and si_code."""

    __slots__ = ("code", "status", "tid")

    def __init__(self, tid: int, status: int, code: int) -> None:
        self.tid = tid
        self.status = status
        self.code = code

    @property
    def exited(self) -> bool:
        """By itself, with `status` as its exit status; otherwise `status` is the signal that killed it."""
        return self.code == os.CLD_EXITED

    @property
    def cause(self) -> str:
        """`exit`, or the name of the signal."""
        if self.exited:
            return "exit"
        import signal  # the start of `mlockwipe run` does without

        try:
            return signal.Signals(self.status).name
        except ValueError:
            return f"SIGRTMIN+{self.status - signal.SIGRTMIN}"


def _decode_stop(found: os.waitid_result) -> Stop:
    tid, status = found.si_pid, found.si_status
    if status == _SECCOMP:
        return SeccompStop(tid)
    if found.si_code == os.CLD_STOPPED:
        return UntracedStop(tid, status)
    event, number = status >> 8, status & 0xFF
    if event == _EVENT_STOP:
        return GroupStop(tid, number) if number in _STOPPING else TrapStop(tid)
    if event:
        return EventStop(tid, event)
    return SyscallStop(tid) if number == _SYSCALL else SignalStop(tid, number)


# How long a task may take to stop, in seconds without any time on a CPU, by its state. One of a frozen control group
# sleeps (S), in version 1 of them uninterruptibly (D); so does one whose call waits for somebody else.
SLEEPING = 1.0
_UNINTERRUPTIBLE = 5.0
_RUNNABLE = 10.0
_LONGEST = 60.0  # whatever its state is
_LOOKS_APART = 0.1
_SIGCHLD = 17


class Stuck(TimeoutError):
    """A task did not stop in time; it may do so later."""

    def __init__(self) -> None:
        super().__init__(
            errno.ETIMEDOUT, "one of its tasks does not stop: it is frozen, or waits for something itself"
        )


class _Waits:
    are_bounded = False
    took_signal = False


def bound_waits() -> None:
    """From now on waiting for one task raises Stuck after a while. SIGCHLD, by which that is done, is blocked."""
    from mlockwipe.linux import signals

    signals.change_mask(signals.SIG_BLOCK, [signals.SIGCHLD])
    _Waits.are_bounded = True


def took_signal() -> bool:
    """Whether waiting for one task has taken a SIGCHLD since this was last asked, so that nobody else gets it."""
    taken, _Waits.took_signal = _Waits.took_signal, False
    return taken


class _Patience:
    """With one task."""

    def __init__(self, tid: int, sleeping: float) -> None:
        self._tid = tid
        self._sleeping = sleeping
        self._began = self._worked = monotonic()
        self._due = self._began + _LOOKS_APART
        self._time = ""

    def sleep(self) -> None:
        """Until a child has something to tell, or it is time to look again. Stuck when it is over.

        The signal that this takes may be that of another child: `took_signal`.
        """
        import signal  # the start of `mlockwipe run` does without

        if signal.sigtimedwait((_SIGCHLD,), max(0.0, self._due - monotonic())) is not None:
            _Waits.took_signal = True
        if (now := monotonic()) < self._due:
            return
        self._due = now + _LOOKS_APART
        try:
            fields = procfs.stat_fields(self._tid)
        except (FileNotFoundError, ProcessLookupError):
            return
        if (time := " ".join(fields[11:13])) != self._time:
            self._time, self._worked = time, now
        patience = self._sleeping if fields[0] in "STt" else _UNINTERRUPTIBLE if fields[0] == "D" else _RUNNABLE
        if now - self._worked >= patience or now - self._began >= _LONGEST:
            raise Stuck


_put_off: set[int] = set()  # whose ends are not to be reported yet
_others: "Callable[[], Iterable[int]]" = tuple  # whose ends are
_taken_too_soon: list[Stop] = []  # execs that were waited for in place of a stop of the task that had the tid before


def look(*, sleep: bool = False) -> Stop | End | None:
    """The next event of any child, which is left to be waited for; None when there is none.

    ChildProcessError without children.
    """
    if _taken_too_soon:
        return _taken_too_soon.pop()
    if _put_off:
        return _look_past_them()
    found = os.waitid(os.P_ALL, 0, _LOOK_AT_ALL if sleep else _LOOK_AT_ALL | os.WNOHANG)
    if found is None:
        return None
    if found.si_status == _SECCOMP:  # by far the most frequent; no end has such a status
        return SeccompStop(found.si_pid)
    if found.si_code in _ENDS:
        return End(found.si_pid, found.si_status, found.si_code)
    return _decode_stop(found)


def _look_past_them() -> Stop | End | None:
    """As `look`, without the ends that are put off, which the kernel would show again and again."""
    stop = look_for_stop()
    if stop is not None:
        return stop
    for tid in _others():
        if tid in _put_off:
            continue
        try:
            found = os.waitid(os.P_PID, tid, os.WEXITED | os.WNOWAIT | os.WNOHANG | WALL)
        except ChildProcessError:
            continue
        if found is not None:
            return End(found.si_pid, found.si_status, found.si_code)
    return None


def put_off(tid: int, others: "Callable[[], Iterable[int]]") -> None:
    """Have `look` not report an end that it has reported, until `report_again`.

    `others`: who else may end meanwhile.
    """
    global _others
    _put_off.add(tid)
    _others = others


def report_again(tid: int) -> None:
    _put_off.discard(tid)


def is_put_off(tid: int) -> bool:
    return tid in _put_off


def look_for_stop(tid: int | None = None) -> Stop | None:
    """As `look`, but stops alone: of any child or of one. None also when it is gone, or all of them are zombies."""
    try:
        found = os.waitid(os.P_ALL if tid is None else os.P_PID, tid or 0, _LOOK_NOW)
    except ChildProcessError:
        return None
    return None if found is None else _decode_stop(found)


def is_still(tid: int) -> bool:
    """Whether a traced task is in a stop, or has ended."""
    try:
        return os.waitid(os.P_PID, tid, _LOOK_NOW | os.WEXITED) is not None
    except ChildProcessError:
        return True


def has_news(tid: int) -> bool:
    """Whether a task whose stop was waited for has come to another one, or to its end; or is another task by now."""
    return any(stop.tid == tid for stop in _taken_too_soon) or is_still(tid)


def await_stop(tid: int, sleeping: float = SLEEPING) -> Stop:
    """Wait for the next stop of a traced task. TaskGone when it is dead, or another thread has got its tid by exec.

    Either is left to be waited for. Stuck when it takes too long, if waits are bounded. `sleeping`: what is too long
    for a task that does nothing meanwhile.
    """
    taken = None
    patience: _Patience | None = None
    options = _LOOK_AT_ALL | os.WNOHANG if _Waits.are_bounded else _LOOK_AT_ALL
    try:
        while taken is None:  # it may be killed between the two
            while (found := os.waitid(os.P_PID, tid, options)) is None:
                patience = patience or _Patience(tid, sleeping)
                patience.sleep()
            if found.si_code in _ENDS or found.si_status == _EXEC:
                raise TaskGone(tid)
            taken = os.waitid(os.P_PID, tid, os.WSTOPPED | WALL | os.WNOHANG)
    except ChildProcessError:
        raise TaskGone(tid) from None
    stop = _decode_stop(taken)
    if taken.si_status == _EXEC:
        _taken_too_soon.append(stop)
        raise TaskGone(tid)
    return stop


def take(tid: int) -> None:
    """Wait for a stop that has been looked at."""
    try:
        os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOHANG | WALL)
    except ChildProcessError:
        return  # it is gone


def await_end(tid: int) -> bool:
    """Wait for the end of a task that was killed, and reap it: False if it has stopped instead. Stuck as above."""
    patience: _Patience | None = None
    options = os.WEXITED | os.WSTOPPED | WALL | (os.WNOHANG if _Waits.are_bounded else 0)
    try:
        while (found := os.waitid(os.P_PID, tid, options)) is None:
            patience = patience or _Patience(tid, SLEEPING)
            patience.sleep()
    except ChildProcessError:
        return True
    return found.si_code in _ENDS


def reap(tid: int) -> None:
    """Wait for an end that has been looked at."""
    try:
        os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | WALL)
    except ChildProcessError:
        return  # reaped already


def was_continued(pid: int) -> bool:
    """Whether a child that is not traced was continued by SIGCONT since this was last asked."""
    return os.waitid(os.P_PID, pid, os.WCONTINUED | os.WNOHANG) is not None


def have_children() -> bool:
    """Whether there is any child, living or a zombie."""
    try:
        os.waitid(os.P_ALL, 0, _LOOK_AT_ALL | os.WNOHANG)
    except ChildProcessError:
        return False
    return True

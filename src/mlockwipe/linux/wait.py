# SPDX-License-Identifier: MIT
"""waitid(2) of tasks that are traced, and what their stops mean, decoded once: a type for each kind of stop.

Most stops are only looked at here (WNOWAIT), not waited for. Letting the task go on takes the news of its stop back
(ptrace_resume in kernel/ptrace.c); and should the tracer die, a signal that a task has stopped for is delivered only
if nobody has waited for that stop.

Source: ptrace(2), include/uapi/linux/{wait,ptrace}.h, Linux 6.18.
"""

import os

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


def await_stop(tid: int) -> Stop:
    """Wait for the next stop of a traced task. TaskGone when it is dead, or another thread has got its tid by exec.

    Either is left to be waited for.
    """
    taken = None
    try:
        while taken is None:  # it may be killed between the two
            found = os.waitid(os.P_PID, tid, _LOOK | os.WEXITED)
            if found is None or found.si_code in _ENDS or found.si_status == _EXEC:
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

# SPDX-License-Identifier: MIT
"""Processes that a test makes and traces itself, and the events that it waits for instead of sleeping."""

import ctypes
import errno
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlockwipe.linux import procfs, ptrace, wait
from mlockwipe.linux.libc import function
from mlockwipe.linux.wait import WALL, End, SignalStop, Stop

_PR_SET_CHILD_SUBREAPER = 36
_prctl = function("prctl", ctypes.c_int, ctypes.c_int, *[ctypes.c_ulong] * 4)


@contextmanager
def child(body: Callable[[], object], options: int | None = None) -> Iterator[int]:
    """A process that executes `body` and exits with 0, or with 99 if that raises; with all its descendants it leads a
    process group. With `options` it is traced from before `body` begins. What is left of it at the end is killed.
    """
    may_begin, begin = os.pipe()
    has_begun, begun = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(begin)
            os.read(may_begin, 1)
            for fd in (may_begin, has_begun):
                os.close(fd)
            os.close(begun)  # last: this is what the test waits for
            body()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    for fd in (may_begin, begun):
        os.close(fd)
    os.setpgid(pid, pid)
    try:
        if options is not None:
            ptrace.seize(pid, options)
        os.close(begin)
        os.read(has_begun, 1)
        os.close(has_begun)
        yield pid
    finally:
        end_group(pid)


def end_group(group: int) -> None:
    """Kill what is left of a process group, and wait for all of it that is ours to wait for."""
    while True:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
            ptrace.cont(group)  # from an exit stop, which SIGKILL does not end
        try:
            found = os.waitid(os.P_PGID, group, os.WEXITED | os.WSTOPPED | WALL)
        except ChildProcessError:
            return
        assert found is not None
        if found.si_code in (os.CLD_TRAPPED, os.CLD_STOPPED):
            with suppress(ProcessLookupError):
                ptrace.cont(found.si_pid)


@contextmanager
def stopped_child(body: Callable[[], object] = signal.pause, options: int = 0) -> Iterator[int]:
    """A traced child, stopped where it waits in a call of `body`."""
    with child(body, options) as pid:
        await_sleep(pid)
        stop(pid)
        yield pid


def stop(tid: int) -> Stop:
    """Stop a traced task, and wait for that."""
    ptrace.interrupt(tid)
    return wait.await_stop(tid)


def await_sleep(tid: int) -> None:
    """Return when a task sleeps in a call."""
    while procfs.stat_fields(tid)[0] != "S":
        os.sched_yield()


def go_on_until(wanted: Callable[[Stop | End], bool]) -> Stop | End:
    """Let every traced task go on, with its signals, until an event is as wanted: that one is only looked at.

    What ends meanwhile is reaped. ChildProcessError when no task is left.
    """
    while True:
        found = wait.look(sleep=True)
        assert found is not None
        if wanted(found):
            return found
        if isinstance(found, End):
            wait.reap(found.tid)
        else:
            with suppress(ProcessLookupError):
                ptrace.cont(found.tid, found.signal if isinstance(found, SignalStop) else 0)


def tracees() -> set[int]:
    """Every task that this process traces, whoever its parent is."""
    found = set()
    for process in Path("/proc").iterdir():
        for tid in procfs.tasks(int(process.name)) if process.name.isdigit() else ():
            with suppress(OSError):
                if procfs.status_field(tid, "TracerPid") == str(os.getpid()):
                    found.add(tid)
    return found


def descriptors(pid: int) -> dict[int, str]:
    """The open files of a process: what each is. The path of one may be too long for the kernel to name."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            try:
                found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                found[int(fd)] = "?"
    return found


@contextmanager
def subreaper() -> Iterator[None]:
    """Orphans of the processes that are made meanwhile become children of this one, as a supervisor's do."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

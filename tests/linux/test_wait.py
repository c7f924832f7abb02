# SPDX-License-Identifier: MIT
"""Each kind of stop and end, provoked on a real child, and what it is decoded as."""

import os
import resource
import signal
import threading
from collections.abc import Callable

import pytest

from mlockwipe.linux import prctl, ptrace, wait
from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.clone import raw_fork
from mlockwipe.linux.libseccomp import RET_TRACE, compile_filter
from mlockwipe.linux.seccomp_filter import install_with_listener
from mlockwipe.linux.wait import (
    EVENT_CLONE,
    EVENT_EXEC,
    EVENT_EXIT,
    EVENT_FORK,
    EVENT_VFORK,
    End,
    EventStop,
    GroupStop,
    SeccompStop,
    SignalStop,
    SyscallStop,
    TaskGone,
    TrapStop,
    UntracedStop,
)
from tests.support.traced import child, go_on_until, stop

TRUE = ["/bin/true"]


def raises(number: int) -> Callable[[], object]:
    return lambda: signal.raise_signal(number)


def calls() -> None:
    while True:
        os.getppid()


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def vfork() -> None:
    os.waitpid(os.posix_spawn(TRUE[0], TRUE, {}), 0)


def clone() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def execute() -> None:
    os.execv(TRUE[0], TRUE)


def execute_from_another_thread() -> None:
    threading.Thread(target=execute).start()
    signal.pause()


def end_of(pid: int) -> End:
    """How a child ends that is not stopped before; it is left to be waited for."""
    found = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
    assert isinstance(found, End)
    return found


def is_to_be_waited_for(pid: int) -> bool:
    """Whether there is a stop or an end of a child that nobody has waited for yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG | wait.WALL) is not None


# -- stops


def test_the_entry_of_a_call_that_a_filter_traces_is_a_seccomp_stop() -> None:
    def body() -> None:
        prctl.set_no_new_privileges()
        install_with_listener(compile_filter([(NATIVE.filtered_as, [(RET_TRACE, "getppid", ())])]))
        os.getpid()
        os.getppid()

    with child(body, ptrace.O_TRACESECCOMP) as pid:
        found = wait.await_stop(pid)
        assert type(found) is SeccompStop
        assert found.tid == pid
        assert ptrace.get_syscall_entry(pid)[1] == 110  # getppid
        ptrace.cont(pid)
        assert end_of(pid).exited  # and no other call has stopped it


def test_the_entry_and_the_exit_of_a_call_are_syscall_stops() -> None:
    with child(calls, ptrace.O_TRACESYSGOOD) as pid:
        stop(pid)
        for _ in range(2):
            ptrace.cont_to_syscall_stop(pid)
            assert type(wait.await_stop(pid)) is SyscallStop


def test_without_their_option_syscall_stops_look_like_a_trap() -> None:
    with child(calls, 0) as pid:
        stop(pid)
        ptrace.cont_to_syscall_stop(pid)
        found = wait.await_stop(pid)
        assert type(found) is SignalStop
        assert found.signal == signal.SIGTRAP


EVENTS = {
    "fork": (fork, ptrace.O_TRACEFORK, EVENT_FORK),
    "vfork": (vfork, ptrace.O_TRACEVFORK, EVENT_VFORK),
    "clone": (clone, ptrace.O_TRACECLONE, EVENT_CLONE),
    "exec": (execute, ptrace.O_TRACEEXEC, EVENT_EXEC),
    "exit": (lambda: None, ptrace.O_TRACEEXIT, EVENT_EXIT),
}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_that_was_asked_for_is_an_event_stop(event: str) -> None:
    body, option, number = EVENTS[event]
    with child(body, option) as pid:
        found = go_on_until(lambda stop: stop.tid == pid)
        assert type(found) is EventStop
        assert (found.tid, found.event) == (pid, number)
        assert (number in wait.BIRTHS) == (event in ("fork", "vfork", "clone"))


@pytest.mark.parametrize("event", EVENTS)
def test_without_its_option_an_event_stops_nobody(event: str) -> None:
    with child(EVENTS[event][0], 0) as pid:
        found = go_on_until(lambda event: isinstance(event, EventStop | End) and event.tid == pid)
        assert type(found) is End


@pytest.mark.parametrize("event", ["fork", "vfork", "clone"])
def test_a_newborn_begins_with_a_trap_stop(event: str) -> None:
    body, option, _ = EVENTS[event]
    with child(body, option) as pid:
        wait.await_stop(pid)
        newborn = ptrace.get_event_message(pid)
        found = wait.await_stop(newborn)
        assert type(found) is TrapStop
        assert found.tid == newborn
        ptrace.cont(newborn)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN + 5, signal.SIGTRAP])
def test_a_signal_on_its_way_is_a_signal_stop(number: int) -> None:
    with child(raises(number), 0) as pid:
        found = wait.await_stop(pid)
        assert type(found) is SignalStop
        assert (found.tid, found.signal) == (pid, number)


def test_ptrace_interrupt_is_a_trap_stop() -> None:
    with child(signal.pause, 0) as pid:
        assert type(stop(pid)) is TrapStop


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU])
def test_job_control_is_a_signal_stop_then_a_group_stop_and_ends_by_a_trap_stop(number: int) -> None:
    with child(raises(number), 0) as pid:
        found = wait.await_stop(pid)
        assert type(found) is SignalStop
        assert found.signal == number
        ptrace.cont(pid, number)
        of_group = wait.await_stop(pid)
        assert type(of_group) is GroupStop
        assert of_group.signal == number
        ptrace.listen(pid)
        os.kill(pid, signal.SIGCONT)
        assert type(wait.await_stop(pid)) is TrapStop


def test_a_child_that_is_not_traced_has_an_untraced_stop() -> None:
    with child(raises(signal.SIGSTOP)) as pid:
        found = wait.await_stop(pid)
        assert type(found) is UntracedStop
        assert (found.tid, found.signal) == (pid, signal.SIGSTOP)
        assert not wait.was_continued(pid)
        os.kill(pid, signal.SIGCONT)
        end_of(pid)


def test_that_a_child_which_is_not_traced_was_continued_is_known_once() -> None:
    def stops_twice() -> None:
        signal.raise_signal(signal.SIGSTOP)
        signal.pause()

    with child(stops_twice) as pid:
        wait.await_stop(pid)
        os.kill(pid, signal.SIGCONT)
        while not wait.was_continued(pid):
            os.sched_yield()
        assert not wait.was_continued(pid)


# -- ends


def test_an_exit_has_its_status() -> None:
    with child(lambda: os._exit(7)) as pid:
        end = end_of(pid)
        assert (end.tid, end.status, end.exited, end.cause) == (pid, 7, True, "exit")


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGKILL, "SIGKILL"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGRTMIN, "SIGRTMIN"),
        (signal.SIGRTMIN + 3, "SIGRTMIN+3"),
        (signal.SIGRTMAX, "SIGRTMAX"),
    ],
)
def test_a_death_by_a_signal_has_its_name(number: int, cause: str) -> None:
    with child(raises(number)) as pid:
        end = end_of(pid)
        assert (end.tid, end.status, end.exited, end.cause) == (pid, number, False, cause)


def test_a_core_dump_is_a_death_by_a_signal(tmp_path: object) -> None:
    def body() -> None:
        os.chdir(str(tmp_path))
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
        signal.raise_signal(signal.SIGQUIT)

    with child(body) as pid:
        end = end_of(pid)
        assert end.code in (os.CLD_DUMPED, os.CLD_KILLED)  # killed where core dumps are forbidden
        assert (end.exited, end.cause) == (False, "SIGQUIT")


# -- looking, taking and reaping


def test_a_stop_is_seen_again_until_it_is_taken() -> None:
    with child(raises(signal.SIGUSR1), 0) as pid:
        for _ in range(2):
            seen = wait.look(sleep=True)
            assert type(seen) is SignalStop
            assert seen.tid == pid
        assert type(wait.look_for_stop()) is type(wait.look_for_stop(pid)) is SignalStop
        wait.take(pid)
        assert wait.look() is None
        assert wait.look_for_stop() is wait.look_for_stop(pid) is None
        wait.take(pid)  # twice does no harm, nor does it wait


def test_a_stop_that_was_not_taken_is_no_news_any_more_once_the_task_goes_on() -> None:
    with child(signal.pause, 0) as pid:
        ptrace.interrupt(pid)
        assert type(wait.look(sleep=True)) is TrapStop
        ptrace.cont(pid)
        assert wait.look() is None


def test_an_end_is_seen_again_until_it_is_reaped() -> None:
    with child(lambda: None) as pid:
        end_of(pid)
        assert type(wait.look()) is End
        assert wait.have_children()
        assert wait.look_for_stop() is wait.look_for_stop(pid) is None  # an end is no stop
        wait.take(pid)  # nor can it be taken for one
        assert is_to_be_waited_for(pid)
        wait.reap(pid)
        with pytest.raises(ChildProcessError):
            is_to_be_waited_for(pid)
        wait.reap(pid)  # twice does no harm


def test_without_children_there_is_nothing_to_wait_for() -> None:
    def body() -> None:
        assert not wait.have_children()
        assert wait.look_for_stop() is None
        with pytest.raises(ChildProcessError):
            wait.look()

    with child(body) as pid:
        assert end_of(pid).status == 0


def test_a_child_that_sends_no_signal_at_its_end_is_waited_for_too() -> None:
    pid = raw_fork(0)
    if pid == 0:
        os._exit(7)
    assert end_of(pid).status == 7
    wait.reap(pid)
    with pytest.raises(ChildProcessError):
        is_to_be_waited_for(pid)


def test_a_stop_that_was_awaited_is_taken() -> None:
    with child(raises(signal.SIGUSR1), 0) as pid:
        wait.await_stop(pid)
        assert not is_to_be_waited_for(pid)


@pytest.mark.parametrize("options", [None, 0], ids=["untraced", "traced"])
def test_who_awaits_the_stop_of_a_task_that_dies_learns_that_it_is_gone(options: int | None) -> None:
    with child(signal.pause, options) as pid:
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(TaskGone):
            wait.await_stop(pid)
        assert is_to_be_waited_for(pid)
        wait.reap(pid)
        with pytest.raises(TaskGone):
            wait.await_stop(pid)


# -- what the kernel does at an exec

EXECS = {"first": execute, "another": execute_from_another_thread}


@pytest.mark.parametrize("thread", EXECS)
def test_an_exec_is_a_stop_of_the_process_and_names_the_thread_that_made_it(thread: str) -> None:
    with child(EXECS[thread], ptrace.O_TRACECLONE | ptrace.O_TRACEEXEC) as pid:
        go_on_until(lambda event: isinstance(event, EventStop) and event.event == EVENT_EXEC and event.tid == pid)
        wait.take(pid)
        assert (ptrace.get_event_message(pid) == pid) == (thread == "first")
        ptrace.cont(pid)
        assert end_of(pid).status == 0


REQUESTS: list[Callable[[int], object]] = [
    ptrace.get_event_message,
    ptrace.get_registers,
    ptrace.get_signal_mask,
    lambda pid: ptrace.set_options(pid, 0),
    ptrace.cont,
]


@pytest.mark.parametrize("thread", EXECS)
def test_requests_are_refused_after_the_exec_of_another_thread_until_its_stop_was_waited_for(thread: str) -> None:
    """looks_like_a_spurious_pid in kernel/ptrace.c, Linux 5.13: a tracer that has not looked yet may mean the former
    first thread, whose tid this is."""

    def refused() -> bool:
        errors = 0
        for request in REQUESTS:
            try:
                request(pid)
            except ProcessLookupError:
                errors += 1
            else:
                break
        assert errors in (0, len(REQUESTS))
        return errors > 0

    with child(EXECS[thread], ptrace.O_TRACECLONE | ptrace.O_TRACEEXEC) as pid:
        go_on_until(lambda event: isinstance(event, EventStop) and event.event == EVENT_EXEC and event.tid == pid)
        assert refused() == (thread == "another")
        wait.take(pid)
        assert not refused()


def test_an_exec_that_was_taken_too_soon_is_still_reported_when_somebody_has_asked_for_children() -> None:
    taken = EventStop(1, EVENT_EXEC)
    wait._taken_too_soon.append(taken)
    with child(signal.pause, 0):
        assert wait.have_children()
        assert wait.look() is taken


def test_an_end_that_is_put_off_hides_no_other_and_is_reported_in_the_end() -> None:
    with child(lambda: None) as first, child(lambda: None) as second:
        for pid in first, second:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        wait.put_off(first, lambda: [first, second])
        try:
            assert wait.is_put_off(first)
            found = wait.look(sleep=True)
            assert isinstance(found, End)
            assert found.tid == second
            wait.reap(second)
            assert wait.look() is None
            assert wait.have_children()
        finally:
            wait.report_again(first)
        found = wait.look()
        assert isinstance(found, End)
        assert found.tid == first

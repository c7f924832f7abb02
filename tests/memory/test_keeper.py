# SPDX-License-Identifier: MIT
"""The keeper of a child's memory: what it shares, what it survives, and that nothing is left where there is none."""

import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from mlockwipe.linux import kcmp, mm, prctl, procfs, ptrace, wait
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.linux.libseccomp import compile_filter
from mlockwipe.linux.mman import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE
from mlockwipe.linux.seccomp_filter import install_with_listener
from mlockwipe.linux.wait import EVENT_EXIT, WALL, End, EventStop, TaskGone
from mlockwipe.memory.filters import filter_two
from mlockwipe.memory.inject import Injection
from mlockwipe.memory.instruction import system_call_instruction
from mlockwipe.memory.keeper import NAME, Keeper, end_task
from mlockwipe.memory.proc_files import Files
from tests.support.traced import await_sleep, go_on_until, stopped_child, subreaper, tracees

SECRET = b"s" * PAGE_SIZE
OPTIONS = ptrace.O_TRACECLONE | ptrace.O_TRACEFORK | ptrace.O_TRACEVFORK | ptrace.O_TRACEEXEC
_ERRNO = 0x00050000  # SCMP_ACT_ERRNO of include/seccomp.h.in


@pytest.fixture(autouse=True)
def as_a_supervisor() -> Iterator[None]:
    with subreaper():
        yield


@pytest.fixture
def page() -> Iterator[int]:
    """The address of three pages, of which a child inherits copies; here they are empty."""
    at = mm.mmap(0, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    yield at
    mm.munmap(at, 3 * PAGE_SIZE)


def fills(at: int) -> Callable[[], None]:
    """What has a child fill those pages with the secret, and wait."""

    def body() -> None:
        ctypes.memmove(at, 3 * SECRET, 3 * PAGE_SIZE)
        signal.pause()

    return body


@contextmanager
def kept(pid: int, filter_program: bytes | None = None) -> Iterator[Keeper]:
    """A keeper of a stopped child."""
    keeper = Keeper.create(pid, procfs.Status(pid), filter_program)
    try:
        yield keeper
    finally:
        keeper.let_go()


def descriptors(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/fd")


def end_of(pid: int) -> End:
    end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
    assert isinstance(end, End)
    return end


# -- what it is


def test_it_shares_the_memory_and_nothing_else(page: int) -> None:
    with stopped_child(fills(page), OPTIONS) as pid, kept(pid) as keeper:
        for task in (keeper.pid, keeper.worker.tid):
            assert kcmp.same_address_space(pid, task)
            assert not kcmp.same_address_space(os.getpid(), task)
            (fd,) = descriptors(task)
            assert os.readlink(f"/proc/{task}/fd/{fd}") == "/dev/zero"
            assert os.readlink(f"/proc/{task}/cwd") == "/"
            assert os.getsid(task) == keeper.pid
        assert descriptors(pid)
        assert os.getsid(pid) != keeper.pid
        assert os.pread(keeper.files.memory, PAGE_SIZE, page) == SECRET


def test_it_sleeps_with_all_signals_blocked(page: int) -> None:
    with stopped_child(fills(page), OPTIONS) as pid, kept(pid) as keeper:
        await_sleep(keeper.pid)
        all_but_kill_and_stop = (1 << 64) - 1 & ~(1 << signal.SIGKILL - 1) & ~(1 << signal.SIGSTOP - 1)
        assert int(procfs.status_field(keeper.pid, "SigBlk"), 16) == all_but_kill_and_stop
        assert procfs.status_field(keeper.pid, "Name") == NAME.decode()
        assert procfs.status_field(pid, "Name") != NAME.decode()


def test_it_is_no_child_of_the_program() -> None:
    def body() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pause()
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, WALL)

    with stopped_child(body, OPTIONS) as pid, kept(pid) as keeper:
        for task in (keeper.pid, keeper.worker.tid):
            assert int(procfs.status_field(task, "PPid")) == os.getpid()
        assert procfs.children(pid) == []
        ptrace.cont(pid)
        os.kill(pid, signal.SIGUSR1)
        assert end_of(pid).status == 0


def test_a_task_that_was_only_cloned_is_a_child_of_the_program() -> None:
    """The negative control."""
    with stopped_child(options=OPTIONS) as pid:
        with Injection(pid, *system_call_instruction(pid)) as task:
            cloned, _ = task.clone()
        try:
            assert procfs.children(pid) == [cloned]
        finally:
            end_task(cloned)


# -- how it lasts


@pytest.mark.parametrize("how", ["killed", "exits"])
def test_it_survives_the_program_with_the_content_of_its_pages(page: int, how: str) -> None:
    def body() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
        fills(page)()

    with stopped_child(body, OPTIONS) as pid, kept(pid) as keeper:
        if how == "killed":
            os.kill(pid, signal.SIGKILL)
        else:
            ptrace.cont(pid)
            os.kill(pid, signal.SIGUSR1)
        assert end_of(pid).exited == (how == "exits")
        wait.reap(pid)
        assert os.pread(keeper.files.memory, PAGE_SIZE, page) == SECRET
        assert keeper.worker.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL


def test_without_one_the_pages_go_with_the_program(page: int) -> None:
    with stopped_child(fills(page), OPTIONS) as pid:
        files = Files(pid)
        assert os.pread(files.memory, PAGE_SIZE, page) == SECRET
        os.kill(pid, signal.SIGKILL)
        end_of(pid)
        assert os.pread(files.memory, PAGE_SIZE, page) == b""
        files.close()


def test_killed_it_halts_in_its_exit_stop_and_still_holds_the_memory(page: int) -> None:
    with stopped_child(fills(page), OPTIONS) as pid, kept(pid) as keeper:
        os.kill(keeper.pid, signal.SIGKILL)
        found = go_on_until(lambda event: event.tid == keeper.pid)
        assert isinstance(found, EventStop)
        assert found.event == EVENT_EXIT
        wait.take(keeper.pid)
        os.kill(pid, signal.SIGKILL)
        end_of(pid)
        assert os.pread(keeper.files.memory, PAGE_SIZE, page) == SECRET


def test_let_go_of_both_its_tasks_are_gone_and_so_is_the_memory(page: int) -> None:
    with stopped_child(fills(page), OPTIONS) as pid:
        with kept(pid) as keeper:
            files = os.dup(keeper.files.memory)
            os.kill(pid, signal.SIGKILL)
            end_of(pid)
            wait.reap(pid)
            assert os.pread(files, PAGE_SIZE, page) == SECRET
        for task in (keeper.pid, keeper.worker.tid):
            with pytest.raises(ProcessLookupError):
                os.kill(task, 0)
        assert os.pread(files, PAGE_SIZE, page) == b""
        assert tracees() == set()
        os.close(files)


def test_a_program_that_its_keeper_has_left_goes_on(page: int) -> None:
    def body() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(ctypes.string_at(page, PAGE_SIZE) != SECRET))
        fills(page)()

    with stopped_child(body, OPTIONS) as pid:
        with kept(pid):
            pass
        ptrace.cont(pid)
        os.kill(pid, signal.SIGUSR1)
        end = end_of(pid)
        assert (end.exited, end.status) == (True, 0)


# -- when there is none


def no_clone() -> None:
    """A program that may make no task."""
    prctl.set_no_new_privileges()
    refused = _ERRNO | errno.EAGAIN
    install_with_listener(compile_filter([(NATIVE.filtered_as, [(refused, "clone", ())])]))
    signal.pause()


def test_a_clone_that_is_refused_to_the_program_is_said_and_leaves_no_task() -> None:
    with stopped_child(no_clone, OPTIONS) as pid:
        with pytest.raises(OSError, match="clone") as refused:
            Keeper.create(pid, procfs.Status(pid), None)
        assert refused.value.errno == errno.EAGAIN
        assert tracees() == {pid}
        assert procfs.children(pid) == []


@pytest.mark.parametrize("which", [1, 2, 3], ids=["middle", "keeper", "worker"])
def test_whichever_clone_is_refused_no_task_is_left_and_the_program_goes_on(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, times = Injection.clone, count(1)

    def refuse(task: Injection, flags: int = 0) -> tuple[int, int]:
        if next(times) == which:
            raise OSError(errno.EAGAIN, "no more")
        return clone(task, flags)

    monkeypatch.setattr(Injection, "clone", refuse)
    with stopped_child(exits_by_usr1, OPTIONS) as pid:
        with pytest.raises(OSError, match="no more"):
            Keeper.create(pid, procfs.Status(pid), None)
        assert next(times) == which + 1
        assert tracees() == {pid}
        assert procfs.children(pid) == []
        ptrace.cont(pid)
        os.kill(pid, signal.SIGUSR1)
        assert end_of(pid).status == 7


def test_where_the_middle_can_not_be_waited_for_no_task_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Injection.call

    def refuse(task: Injection, name: str, *arguments: int) -> int:
        if name == "wait4":
            raise OSError(errno.EIO, "no wait")
        return call(task, name, *arguments)

    monkeypatch.setattr(Injection, "call", refuse)
    with stopped_child(options=OPTIONS) as pid:
        with pytest.raises(OSError, match="no wait"):
            Keeper.create(pid, procfs.Status(pid), None)
        assert tracees() == {pid}


def exits_by_usr1() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
    signal.pause()


@pytest.mark.parametrize("victim", ["program", "caller"])
def test_killed_at_any_call_there_is_a_keeper_or_no_task_at_all(
    page: int, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`victim`: the program, or the task that is to execute the call, be it the program, the keeper or between."""
    call = Injection.call
    calls = count(1)
    outcomes: set[type] = set()
    others = set(procfs.children(os.getpid()))  # what another test has left behind is none of ours

    def kill_at_one(task: Injection, name: str, *arguments: int) -> int:
        if next(calls) == number:
            os.kill(task.tid if victim == "caller" else pid, signal.SIGKILL)
        return call(task, name, *arguments)

    monkeypatch.setattr(Injection, "call", kill_at_one)
    for number in count(1):
        calls = count(1)
        with stopped_child(fills(page), OPTIONS) as pid:
            try:
                keeper = Keeper.create(pid, procfs.Status(pid), None)
            except TaskGone as error:
                outcomes.add(type(error))
                assert tracees() <= {pid}
                assert set(procfs.children(os.getpid())) - others <= {pid}
            else:
                outcomes.add(Keeper)
                assert os.pread(keeper.files.memory, PAGE_SIZE, page) == SECRET
                keeper.let_go()
        if next(calls) <= number:
            break  # it makes no more calls than that
    assert outcomes == {TaskGone, Keeper}


# -- filters


def has_threads() -> None:
    threading.Thread(target=signal.pause).start()
    signal.pause()


def one_thread_has_a_filter() -> None:
    def confined() -> None:
        no_clone()

    threading.Thread(target=confined).start()
    signal.pause()


def filters(pid: int) -> set[str]:
    """How many filters the threads of a process have."""
    return {procfs.status_field(tid, "Seccomp_filters") for tid in procfs.tasks(pid)}


@pytest.mark.parametrize("with_keeper", [True, False])
def test_a_filter_is_added_to_the_whole_process(with_keeper: bool) -> None:
    code = filter_two(unmap=True)
    with stopped_child(has_threads, OPTIONS & ~ptrace.O_TRACECLONE) as pid:
        ptrace.set_options(pid, OPTIONS)
        assert filters(pid) == {"0"}
        with kept(pid, code if with_keeper else None) as keeper:
            assert keeper.whole_process == with_keeper
            if not with_keeper:
                assert filters(pid) == {"0"}
                assert keeper.add_filter(pid, procfs.Status(pid), code)
            assert len(procfs.tasks(pid)) == 2
            assert filters(pid) == {"1"}


@pytest.mark.parametrize("with_keeper", [True, False])
def test_a_filter_is_added_to_one_thread_where_another_has_other_filters(with_keeper: bool) -> None:
    code = filter_two(unmap=True)
    with stopped_child(one_thread_has_a_filter, OPTIONS & ~ptrace.O_TRACECLONE) as pid:
        (other,) = set(procfs.tasks(pid)) - {pid}
        await_sleep(other)
        ptrace.set_options(pid, OPTIONS)
        while procfs.status_field(other, "Seccomp_filters") == "0":
            os.sched_yield()
        with kept(pid, code if with_keeper else None) as keeper:
            if not with_keeper:
                assert not keeper.add_filter(pid, procfs.Status(pid), code)
            assert not keeper.whole_process
            assert procfs.status_field(pid, "Seccomp_filters") == "1"
            assert procfs.status_field(other, "Seccomp_filters") == "1"  # its own
            assert procfs.status_field(keeper.pid, "Seccomp_filters") == "1"  # another one


# -- zeros


def test_zeros_are_read_into_the_range_and_nowhere_else(page: int) -> None:
    with stopped_child(fills(page), OPTIONS) as pid, kept(pid) as keeper:
        for _ in range(2):  # /dev/zero is opened once
            keeper.read_zeros(page + PAGE_SIZE, page + 2 * PAGE_SIZE)
        assert os.pread(keeper.files.memory, 3 * PAGE_SIZE, page) == SECRET + bytes(PAGE_SIZE) + SECRET
        assert len(descriptors(keeper.pid)) == 1


def test_zeros_that_can_not_be_written_are_an_error(page: int) -> None:
    mm.mprotect(page, PAGE_SIZE, PROT_READ)
    with stopped_child(options=OPTIONS) as pid, kept(pid) as keeper:
        with pytest.raises(OSError, match="/dev/zero") as refused:
            keeper.read_zeros(page, page + PAGE_SIZE)
        assert refused.value.errno == errno.EFAULT


def test_without_its_worker_no_zeros_are_read(page: int) -> None:
    with stopped_child(fills(page), OPTIONS) as pid, kept(pid) as keeper:
        end_task(keeper.worker.tid)
        with pytest.raises(TaskGone):
            keeper.read_zeros(page, page + PAGE_SIZE)
        assert os.pread(keeper.files.memory, PAGE_SIZE, page) == SECRET

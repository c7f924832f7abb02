# SPDX-License-Identifier: MIT
"""System calls that a stopped child executes for the test, and that it goes on as if there had been none."""

import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from mlockwipe.linux import kcmp, procfs, ptrace, wait
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.linux.mman import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE
from mlockwipe.linux.wait import End, GroupStop, SignalStop, TaskGone
from mlockwipe.memory.inject import MASK, Injection
from mlockwipe.memory.instruction import system_call_instruction
from mlockwipe.memory.keeper import end_task
from tests.support.c_programs import compiled, needs_gcc
from tests.support.traced import await_sleep, child, go_on_until, stop, stopped_child, tracees

ANONYMOUS = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0xFFFFFFFF, 0)
libc = ctypes.CDLL(None, use_errno=True)


def injection(pid: int) -> Injection:
    return Injection(pid, *system_call_instruction(pid))


@contextmanager
def injected(body: Callable[[], object] = signal.pause, options: int = 0) -> Iterator[Injection]:
    """A stopped child that executes calls for the test. It stays stopped afterwards."""
    with stopped_child(body, options) as pid, injection(pid) as task:
        yield task


def status_at_end(pid: int) -> int:
    """Of a child, which gets its signals until then: the exit status, or the signal negated."""
    end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
    assert isinstance(end, End)
    return end.status if end.exited else -end.status


def is_mapped(pid: int, address: int) -> bool:
    maps = procfs.open_file(pid, "maps")
    try:
        return bool(list(procfs.vmas(maps, address, address + PAGE_SIZE)))
    finally:
        os.close(maps)


# -- calls


def test_a_call_is_executed_by_the_child_and_returns_its_result() -> None:
    with injected() as task:
        address = task.call("mmap", 0, PAGE_SIZE, *ANONYMOUS)
        assert is_mapped(task.tid, address)
        assert task.call("munmap", address, PAGE_SIZE) == 0
        assert not is_mapped(task.tid, address)


def test_a_call_that_fails_returns_its_errno_negated() -> None:
    with injected() as task:
        assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL
        assert task.call("chdir", 0) == -errno.EFAULT
        assert task.call("wait4", -1, 0, 0, 0) == -errno.ECHILD


# -- what comes back


def test_registers_and_signal_mask_come_back_exactly() -> None:
    def body() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGRTMAX])
        signal.pause()

    with stopped_child(body) as pid:
        registers, mask = bytes(ptrace.get_registers(pid)), ptrace.get_signal_mask(pid)
        assert mask & 1 << signal.SIGUSR1 - 1
        with injection(pid) as task:
            task.call("mmap", 0, PAGE_SIZE, *ANONYMOUS)
            assert bytes(ptrace.get_registers(pid)) != registers
            assert bytes(task.registers) == registers
            assert ptrace.get_signal_mask(pid) == MASK
        assert bytes(ptrace.get_registers(pid)) == registers
        assert ptrace.get_signal_mask(pid) == mask


def test_they_come_back_also_when_what_was_tried_has_failed() -> None:
    with stopped_child() as pid:
        registers, mask = bytes(ptrace.get_registers(pid)), ptrace.get_signal_mask(pid)
        with pytest.raises(ZeroDivisionError), injection(pid) as task:
            task.call("munmap", 1, PAGE_SIZE)
            raise ZeroDivisionError
        assert bytes(ptrace.get_registers(pid)) == registers
        assert ptrace.get_signal_mask(pid) == mask


def test_a_task_that_is_pointed_at_a_call_makes_that_instead() -> None:
    with stopped_child() as pid:
        with injection(pid) as task:
            task.point_at("exit", 7)
        ptrace.cont(pid)
        assert status_at_end(pid) == 7


def reads(fd: int) -> object:
    return os.read(fd, 1) == b"x"


def sleeps(_: int) -> object:
    began = time.monotonic()
    done = libc.nanosleep((ctypes.c_long * 2)(0, 50_000_000), None)
    return done == 0 and time.monotonic() - began >= 0.05


def polls(fd: int) -> object:
    libc.poll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int]
    descriptor = (ctypes.c_short * 4).from_buffer_copy(fd.to_bytes(4, "little") + b"\1\0\0\0")  # POLLIN
    return libc.poll(ctypes.addressof(descriptor), 1, 120_000) == 1


def waits_for_the_end(fd: int) -> object:
    pid = os.fork()
    if pid == 0:
        os._exit(len(os.read(fd, 1)))
    status = ctypes.c_int()
    return libc.waitpid(pid, ctypes.byref(status), 0) == pid and os.waitstatus_to_exitcode(status.value) == 1


@pytest.mark.parametrize("waits", [reads, sleeps, polls, waits_for_the_end])
def test_an_interrupted_call_goes_on_as_if_nothing_had_happened(waits: Callable[[int], object]) -> None:
    read_end, write_end = os.pipe()
    with stopped_child(lambda: os._exit(bool(waits(read_end)))) as pid:
        with injection(pid) as task:
            address = task.call("mmap", 0, PAGE_SIZE, *ANONYMOUS)
            task.call("munmap", address, PAGE_SIZE)
        ptrace.cont(pid)
        os.write(write_end, b"x")
        assert status_at_end(pid) == 1
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("waits", [sleeps, polls])
def test_the_same_call_ends_early_by_a_handler(waits: Callable[[int], object]) -> None:
    """The negative control: an interruption is noticed."""

    def body() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        os._exit(bool(waits(read_end)))

    read_end, write_end = os.pipe()
    with child(body) as pid:
        await_sleep(pid)
        os.kill(pid, signal.SIGUSR1)
        assert status_at_end(pid) == 0
    os.close(read_end)
    os.close(write_end)


# -- signals meanwhile


def counts_signals() -> None:
    """Exit with the number of SIGUSR1 that came before SIGUSR2."""
    count = [0]

    def one_more(*_: object) -> None:
        count[0] += 1

    signal.signal(signal.SIGUSR1, one_more)
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(count[0]))
    while True:
        signal.pause()


@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_that_arrives_meanwhile_is_delivered_afterwards_and_once(number: int) -> None:
    with stopped_child(counts_signals) as pid:
        with injection(pid) as task:
            if number:
                os.kill(pid, signal.SIGUSR1)
            assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL
            assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL
        ptrace.cont(pid)
        if number:
            found = wait.await_stop(pid)
            assert isinstance(found, SignalStop)
            assert found.signal == signal.SIGUSR1
            ptrace.cont(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGUSR2)
        assert status_at_end(pid) == number


def test_one_that_cannot_be_blocked_is_put_off_and_delivered_once() -> None:
    with stopped_child() as pid:
        with injection(pid) as task:
            os.kill(pid, signal.SIGSTOP)
            assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL
        ptrace.cont(pid)
        found = wait.await_stop(pid)
        assert isinstance(found, SignalStop)
        assert found.signal == signal.SIGSTOP
        ptrace.cont(pid)  # without it: is there another?
        os.kill(pid, signal.SIGUSR1)
        found = wait.await_stop(pid)
        assert isinstance(found, SignalStop)
        assert found.signal == signal.SIGUSR1


def handles_sigtrap() -> None:
    signal.signal(signal.SIGTRAP, lambda *_: os._exit(7))
    while True:
        signal.pause()


def test_the_handler_of_sigtrap_stays() -> None:
    with stopped_child(handles_sigtrap) as pid:
        with injection(pid) as task:
            task.call("munmap", 1, PAGE_SIZE)
        ptrace.cont(pid)
        os.kill(pid, signal.SIGTRAP)
        assert status_at_end(pid) == 7


def test_a_sigtrap_from_somebody_else_is_not_taken_for_the_end_of_a_call() -> None:
    with stopped_child(handles_sigtrap) as pid:
        with injection(pid) as task:
            for _ in range(2):
                os.kill(pid, signal.SIGTRAP)
                assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL
        ptrace.cont(pid)
        assert status_at_end(pid) == 7


def test_the_stop_of_its_group_is_reported_afterwards() -> None:
    def body() -> None:
        threading.Thread(target=signal.pause, daemon=True).start()
        signal.pause()

    with stopped_child(body) as pid:
        (other,) = set(procfs.tasks(pid)) - {pid}
        with injection(pid) as task:
            # The other thread is not traced: it stops at once, and with it the group.
            os.kill(pid, signal.SIGSTOP)
            while procfs.stat_fields(other)[0] != "T":
                os.sched_yield()
            assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL
        ptrace.cont(pid)
        found = wait.await_stop(pid)
        assert type(found) is GroupStop
        assert found.signal == signal.SIGSTOP


@pytest.mark.parametrize("options", [0, ptrace.O_TRACEEXIT], ids=["dies", "stops-at-its-exit"])
def test_a_task_that_is_killed_meanwhile_is_gone(options: int) -> None:
    with stopped_child(options=options) as pid:
        with pytest.raises(TaskGone), injection(pid) as task:
            os.kill(pid, signal.SIGKILL)
            task.call("munmap", 1, PAGE_SIZE)
        with suppress(ProcessLookupError):
            ptrace.cont(pid)  # from its exit stop, if it has come that far
        assert status_at_end(pid) == -signal.SIGKILL  # its end was left to be waited for


def test_a_task_that_is_killed_after_its_last_call_is_gone() -> None:
    with stopped_child() as pid, pytest.raises(TaskGone), injection(pid) as task:
        task.call("munmap", 1, PAGE_SIZE)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_task_that_is_dead_is_gone() -> None:
    with child(lambda: None, 0) as pid:
        with pytest.raises(TaskGone):
            wait.await_stop(pid)
        with pytest.raises(TaskGone):
            system_call_instruction(pid)
        with pytest.raises(TaskGone), Injection(pid, NATIVE, 0):
            pass


@pytest.mark.parametrize("options", [0, ptrace.O_TRACEEXIT], ids=["dead", "in-its-exit-stop"])
def test_a_task_that_a_call_has_ended_is_gone_and_stays_in_its_exit_stop(options: int) -> None:
    with stopped_child(options=options) as pid:
        with pytest.raises(TaskGone), injection(pid) as task:
            task.call("exit", 7)
        assert procfs.stat_fields(pid)[0] == ("t" if options else "Z")


# -- restartable sequences


@needs_gcc
@pytest.mark.parametrize("inject", [True, False])
def test_a_restartable_sequence_is_aborted_as_by_any_stop(inject: bool) -> None:
    critical = compiled("critical")
    with child(lambda: os.execv(critical, [critical]), 0) as pid:
        while procfs.executable(pid) != critical or int(procfs.stat_fields(pid)[11]) < 5:  # ticks in user space
            os.sched_yield()
        stop(pid)
        if inject:
            with injection(pid) as task:
                task.call("munmap", 1, PAGE_SIZE)
        ptrace.cont(pid)
        assert status_at_end(pid) == 3


# -- clone


def test_a_cloned_task_is_traced_and_shares_the_memory_alone() -> None:
    with injected(options=ptrace.O_TRACECLONE) as task:
        pid, as_it_counts = task.clone()
        try:
            assert pid == as_it_counts
            assert kcmp.same_address_space(task.tid, pid)
            assert not kcmp.same_address_space(os.getpid(), pid)
            status = procfs.Status(pid)
            assert int(status["Tgid"]) == pid
            assert int(status["PPid"]) == task.tid
            assert int(status["TracerPid"]) == os.getpid()
            assert procfs.stat_fields(pid)[35] == "0"  # no signal at its end
            fd = task.call("openat", -100, _a_path(task), os.O_RDONLY, 0)
            assert fd >= 0
            assert os.path.exists(f"/proc/{task.tid}/fd/{fd}")
            assert not os.path.exists(f"/proc/{pid}/fd/{fd}")
            with injection(pid) as other:
                address = other.call("mmap", 0, PAGE_SIZE, *ANONYMOUS)
            assert is_mapped(task.tid, address)
        finally:
            end_task(pid)


def _a_path(task: Injection) -> int:
    """The address of the string "/" in the child's memory."""
    address = task.call("mmap", 0, PAGE_SIZE, *ANONYMOUS)
    with open(f"/proc/{task.tid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(b"/\0")
    return address


def test_a_clone_that_the_kernel_refuses_leaves_nothing() -> None:
    with injected() as task:
        before = tracees()
        with pytest.raises(OSError, match="clone") as refused:
            task.clone(0x10000)  # CLONE_THREAD without CLONE_SIGHAND
        assert refused.value.errno == errno.EINVAL
        assert tracees() == before
        assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL

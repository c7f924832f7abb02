# SPDX-License-Identifier: MIT
"""What helper tasks may not do, though they have the credentials that the program had when they were made."""

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlockwipe.linux import mm, procfs, ptrace, unix_socket, wait
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.linux.arch.x86_64 import I386, X32_SYSCALL_BIT
from mlockwipe.linux.mman import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from mlockwipe.memory import zeros
from mlockwipe.memory.inject import Injection
from mlockwipe.memory.keeper import Keeper
from tests.support.traced import await_sleep, go_on_until, stopped_child, subreaper

OPTIONS = ptrace.O_TRACECLONE | ptrace.O_TRACEFORK | ptrace.O_TRACEVFORK | ptrace.O_TRACEEXEC
READ_WRITE = PROT_READ | PROT_WRITE
PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS
NUMBERS = {
    "getpid": 39,
    "open": 2,
    "openat": 257,
    "socket": 41,
    "execve": 59,
    "kill": 62,
    "setuid": 105,
    "unlink": 87,
    "write": 1,
    "pread64": 17,
    "fork": 57,
    "process_vm_writev": 311,
    "memfd_create": 319,
    "io_uring_setup": 425,
}


@contextmanager
def kept(page: int = 0) -> Iterator[tuple[int, Keeper]]:
    """A child that waits and has what is mapped here, and its keeper."""
    with subreaper(), stopped_child(options=OPTIONS) as pid:
        keeper = Keeper.create(pid, procfs.Status(pid), None)
        try:
            yield pid, keeper
        finally:
            keeper.let_go()


@pytest.fixture
def page() -> Iterator[int]:
    at = mm.mmap(0, 2 * PAGE_SIZE, READ_WRITE, PRIVATE)
    yield at
    mm.munmap(at, 2 * PAGE_SIZE)


@contextmanager
def executing(pid: int, keeper: Keeper) -> Iterator[Injection]:
    """The keeper itself, or its worker, as if it had been made to run code of the program."""
    if pid == keeper.worker.tid:
        yield keeper.worker
        return
    await_sleep(pid)
    os.kill(pid, signal.SIGSTOP)
    go_on_until(lambda event: event.tid == pid)
    wait.take(pid)
    with Injection(pid, keeper.abi, keeper.instruction) as task:
        yield task


@pytest.mark.parametrize("which", ["keeper", "worker"])
def test_it_has_no_capability_and_can_get_no_privilege(which: str) -> None:
    with kept() as (pid, keeper):
        status = procfs.Status(keeper.pid if which == "keeper" else keeper.worker.tid)
        for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[field], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        own = procfs.Status(pid)
        for field in ("CapPrm", "NoNewPrivs", "Seccomp", "Uid", "Gid"):
            assert own[field] == procfs.status_field(os.getpid(), field)  # of the program nothing is taken


@pytest.mark.parametrize("call", NUMBERS)
@pytest.mark.parametrize("which", ["keeper", "worker"])
def test_it_is_refused_all_other_calls(which: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NATIVE.numbers, call, NUMBERS[call])
    with (
        kept() as (_, keeper),
        executing(keeper.pid if which == "keeper" else keeper.worker.tid, keeper) as task,
    ):
        assert task.call(call, 0, 0, 0) == -errno.EPERM


def test_the_same_calls_are_none_that_fail_so_in_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    monkeypatch.setitem(NATIVE.numbers, "getpid", 39)
    with kept() as (pid, keeper), Injection(pid, keeper.abi, keeper.instruction) as task:
        assert task.call("getpid") == pid


@pytest.mark.parametrize("which", ["keeper", "worker"])
def test_calls_of_another_abi_are_refused(which: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ctypes.memmove(page, I386.instruction, len(I386.instruction))
    mm.mprotect(page, PAGE_SIZE, PROT_READ | PROT_EXEC)
    monkeypatch.setitem(NATIVE.numbers, "i386's pause", I386.numbers["pause"])
    monkeypatch.setitem(NATIVE.numbers, "i386's read", I386.numbers["read"])
    monkeypatch.setitem(NATIVE.numbers, "x32's pause", NATIVE.numbers["pause"] | X32_SYSCALL_BIT)
    with (
        kept() as (_, keeper),
        executing(keeper.pid if which == "keeper" else keeper.worker.tid, keeper) as task,
    ):
        assert task.call("x32's pause") == -errno.EPERM
        task.instruction = page
        assert task.call("i386's pause") == -errno.EPERM
        assert task.call("i386's read") == -errno.EPERM


def test_the_worker_makes_the_calls_of_a_wipe_with_the_arguments_of_one(page: int) -> None:
    with kept() as (_, keeper):
        call = keeper.worker.call
        assert call("mprotect", page, PAGE_SIZE, READ_WRITE) == 0
        assert call("mprotect", page, PAGE_SIZE, READ_WRITE | PROT_EXEC) == -errno.EPERM
        assert call("madvise", page, PAGE_SIZE, MADV_DONTNEED_LOCKED) == 0
        assert call("madvise", page, PAGE_SIZE, MADV_COLLAPSE) == -errno.EINVAL
        assert call("madvise", page, PAGE_SIZE, MADV_DONTNEED) == -errno.EPERM
        (fd,) = (int(name) for name in os.listdir(f"/proc/{keeper.pid}/fd"))
        assert call("read", fd, page, PAGE_SIZE) == PAGE_SIZE
        for other in (0, fd + 1, fd + (1 << 32)):
            assert call("read", other, page, PAGE_SIZE) == -errno.EPERM
        at = call("mmap", 0, PAGE_SIZE, READ_WRITE, PRIVATE, 0xFFFFFFFF, 0)
        assert at > 0
        assert call("mmap", 0, PAGE_SIZE, READ_WRITE, MAP_SHARED, fd, 0) == -errno.EPERM
        assert call("mmap", at, PAGE_SIZE, READ_WRITE, PRIVATE | MAP_FIXED, 0xFFFFFFFF, 0) == -errno.EPERM
        assert call("munmap", at, PAGE_SIZE) == 0
        assert call("io_destroy", 1) == -errno.EINVAL


def test_the_keeper_may_sleep_and_end_native_aio(page: int) -> None:
    with kept() as (_, keeper), executing(keeper.pid, keeper) as task:
        assert task.call("io_destroy", 1) == -errno.EINVAL
        for call in ("mprotect", "munmap", "read", "exit", "seccomp", "clone"):
            assert task.call(call, 0, 0, 0) == -errno.EPERM


def test_another_file_than_dev_zero_is_not_taken(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/null", "rb") as null:
        monkeypatch.setattr(zeros, "_own", null.fileno())
        with kept() as (_, keeper):
            with pytest.raises(OSError, match="/dev/zero"):
                keeper.read_zeros(page, page + PAGE_SIZE)
            assert keeper.worker.call("read", 2, page, PAGE_SIZE) == -errno.EPERM


def test_where_none_can_be_handed_over_there_is_a_keeper_without(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(unix_socket, "send", refuse)
    with kept() as (_, keeper):
        assert os.listdir(f"/proc/{keeper.pid}/fd") == []
        with pytest.raises(OSError, match="/dev/zero"):
            keeper.read_zeros(page, page + PAGE_SIZE)

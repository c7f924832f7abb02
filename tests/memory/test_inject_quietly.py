# SPDX-License-Identifier: MIT
"""Calls that a program which ignores SIGTRAP executes for the test; it goes on ignoring it."""

import errno
import os
import signal
import time

import pytest

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.linux.wait import End, TaskGone
from mlockwipe.memory.inject import Injection
from mlockwipe.memory.inject_quietly import Quiet, injection
from mlockwipe.memory.instruction import system_call_instruction
from mlockwipe.memory.keeper import end_task
from tests.support.traced import go_on_until, stopped_child

OPTIONS = ptrace.O_TRACESYSGOOD | ptrace.O_TRACECLONE
SIGTRAP_BIT = 1 << signal.SIGTRAP - 1


def ignores_sigtrap() -> None:
    """Exits with 7 when a time is over that begins anew if sleeping is not restarted, but called again."""
    signal.signal(signal.SIGTRAP, signal.SIG_IGN)
    start = time.monotonic()
    time.sleep(0.3)
    os._exit(7 if time.monotonic() - start < 0.6 else 8)


def ignored(pid: int) -> int:
    return int(procfs.status_field(pid, "SigIgn"), 16) & SIGTRAP_BIT


def quiet(pid: int) -> Injection:
    return injection(pid, procfs.Status(pid), *system_call_instruction(pid))


def end_of(pid: int) -> End:
    end = go_on_until(lambda event: isinstance(event, End) and event.tid == pid)
    assert isinstance(end, End)
    return end


def test_it_goes_on_ignoring_sigtrap_and_sleeping() -> None:
    with stopped_child(ignores_sigtrap, OPTIONS) as pid:
        with quiet(pid) as task:
            assert isinstance(task, Quiet)
            for _ in range(3):
                assert task.call("munmap", 1, PAGE_SIZE) == -errno.EINVAL
        assert ignored(pid)
        ptrace.cont(pid)
        assert end_of(pid).status == 7


def test_a_single_step_would_set_it_back_to_its_default() -> None:
    with stopped_child(ignores_sigtrap, OPTIONS) as pid:
        with Injection(pid, *system_call_instruction(pid)) as task:
            task.call("munmap", 1, PAGE_SIZE)
        assert not ignored(pid)


def test_a_program_that_does_not_ignore_it_takes_single_steps() -> None:
    with stopped_child(options=OPTIONS) as pid, quiet(pid) as task:
        assert not isinstance(task, Quiet)


def test_it_makes_tasks_and_takes_signals_afterwards() -> None:
    with stopped_child(ignores_sigtrap, OPTIONS) as pid:
        with quiet(pid) as task:
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGTERM)
            made, _ = task.clone()
            end_task(made)
            task.call("wait4", made, 0, 0x40000000, 0)
        os.kill(pid, signal.SIGCONT)
        ptrace.cont(pid)
        assert (end_of(pid).status, end_of(pid).exited) == (signal.SIGTERM, False)


def test_killed_meanwhile_it_is_gone() -> None:
    with stopped_child(ignores_sigtrap, OPTIONS) as pid, pytest.raises(TaskGone), quiet(pid) as task:
        os.kill(pid, signal.SIGKILL)
        task.call("munmap", 1, PAGE_SIZE)


def test_what_is_no_system_call_is_not_taken_for_one() -> None:
    with stopped_child(ignores_sigtrap, OPTIONS) as pid:
        abi, _ = system_call_instruction(pid)
        with (
            injection(pid, procfs.Status(pid), abi, 0x1000) as task,
            pytest.raises(OSError, match="no system-call instruction"),
        ):
            task.call("munmap", 1, PAGE_SIZE)
        ptrace.cont(pid)
        assert end_of(pid).status == 7

# SPDX-License-Identifier: MIT
"""A foreign task that executes calls for us: whether it dies with its tracer, and in what stop it is left."""

import errno
import os
import signal

import pytest

from mlockwipe.linux import ptrace, wait
from mlockwipe.linux.wait import GroupStop, TrapStop
from mlockwipe.memory.inject import Injection
from mlockwipe.memory.instruction import system_call_instruction
from mlockwipe.tracing.mercy import OPTIONS, AtOurMercy
from tests.support.traced import await_sleep, child, end_group, stop, stopped_child, subreaper


def execute_a_call(pid: int) -> None:
    with Injection(pid, *system_call_instruction(pid)) as task:
        assert task.call("munmap", 1, 4096) == -errno.EINVAL


@pytest.mark.parametrize(("when", "status"), [("meanwhile", -signal.SIGKILL), ("afterwards", 7)])
def test_it_dies_with_its_tracer_meanwhile_and_not_afterwards(when: str, status: int) -> None:
    told, tell = os.pipe()

    def waits() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
        signal.pause()

    def tracer() -> None:
        with child(waits) as pid:
            await_sleep(pid)
            os.write(tell, pid.to_bytes(4, "little"))
            ptrace.seize(pid, OPTIONS)
            stop(pid)
            with AtOurMercy(pid, suspend_seccomp=False):
                execute_a_call(pid)
                if when == "meanwhile":
                    os._exit(0)
            os._exit(0)

    with subreaper(), child(tracer) as pid:
        orphan = int.from_bytes(os.read(told, 4), "little")
        try:
            assert os.waitpid(pid, 0)[1] == 0
            if when == "afterwards":
                os.kill(orphan, signal.SIGUSR1)
            end = os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
            assert end is not None
            assert (end.si_status if end.si_code == os.CLD_EXITED else -end.si_status) == status
        finally:
            end_group(orphan)
    os.close(told)
    os.close(tell)


def test_it_is_left_in_a_stop_of_its_own() -> None:
    with stopped_child(options=OPTIONS) as pid:
        mercy = AtOurMercy(pid, suspend_seccomp=False)
        with mercy:
            execute_a_call(pid)
        assert type(mercy.stop) is TrapStop


def test_where_its_group_is_stopped_it_is_left_in_that_stop() -> None:
    with child(lambda: signal.raise_signal(signal.SIGSTOP), OPTIONS) as pid:
        wait.await_stop(pid)
        ptrace.cont(pid, signal.SIGSTOP)
        assert type(wait.await_stop(pid)) is GroupStop
        mercy = AtOurMercy(pid, suspend_seccomp=False)
        with mercy:
            execute_a_call(pid)
        assert type(mercy.stop) is GroupStop


def test_a_task_that_is_killed_meanwhile_leaves_without_an_error() -> None:
    with stopped_child(options=OPTIONS) as pid, AtOurMercy(pid, suspend_seccomp=False):
        os.kill(pid, signal.SIGKILL)


ONLY_ROOT = "only root can suspend"


@pytest.mark.parametrize(("number", "said"), [(errno.EPERM, ONLY_ROOT), (errno.EINVAL, ONLY_ROOT), (errno.EIO, "x")])
def test_filters_that_can_not_be_suspended_are_the_reason(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: int) -> None:
        raise OSError(number, "x")

    with stopped_child(options=OPTIONS) as pid:
        monkeypatch.setattr(ptrace, "set_options", refused)
        with pytest.raises(OSError, match=said), AtOurMercy(pid, suspend_seccomp=True):
            pass

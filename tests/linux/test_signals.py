# SPDX-License-Identifier: MIT
"""Masks and dispositions of signals, against what Python's own signal module says of them."""

import os
import signal
import subprocess

import pytest

from mlockwipe.linux import signals


def blocked() -> set[int]:
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGPIPE", "SIGCHLD", "SIGSTOP", "SIGXFSZ"])
def test_numbers_are_those_of_the_system(name: str) -> None:
    assert getattr(signals, name) == getattr(signal, name)


def test_all_are_all_that_a_program_may_use() -> None:
    assert {int(number) for number in signal.valid_signals()} == signals.ALL


def test_the_mask_is_changed_and_restored() -> None:
    before = blocked()
    some = {signal.SIGUSR1, signal.SIGRTMAX}
    assert signals.change_mask(signals.SIG_BLOCK, some) == before
    try:
        assert blocked() == before | some
        assert signals.change_mask(signals.SIG_UNBLOCK, [signal.SIGUSR1]) == before | some
        assert blocked() == before | {signal.SIGRTMAX}
    finally:
        signals.change_mask(signals.SIG_SETMASK, before)
    assert blocked() == before


def test_a_mask_of_no_known_kind_is_an_error() -> None:
    with pytest.raises(OSError, match="pthread_sigmask: Invalid argument"):
        signals.change_mask(9, [])


def test_the_default_is_restored() -> None:
    ending = signals.SIGXFSZ  # ignored by Python, and so by what it executes
    for restore in (False, True):
        pid = os.fork()
        if pid == 0:
            if restore:
                signals.restore_default(ending)
            os.kill(os.getpid(), ending)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == (-ending if restore else 0)


def test_the_default_of_sigkill_can_not_be_restored() -> None:
    with pytest.raises(OSError, match=r"signal\(9, SIG_DFL\)"):
        signals.restore_default(signals.SIGKILL)


def test_a_signal_is_sent_by_pidfd_as_long_as_there_is_somebody() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleep:
        pidfd = os.pidfd_open(sleep.pid)
        signals.send_by_pidfd(pidfd, signal.SIGTERM)
        assert sleep.wait() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        signals.send_by_pidfd(pidfd, signal.SIGTERM)
    os.close(pidfd)

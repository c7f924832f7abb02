# SPDX-License-Identifier: MIT
"""The program's parent is the supervisor; what passes between a program and its parent passes to the real one."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.python_lock import LOCK
from tests.support.running import MLOCKWIPE, TIMEOUT, marked

TELLS = "import os, signal; os.kill(os.getppid(), signal.{})"
ASKS = """
import ctypes, os, signal, sys, time
pr_set_pdeathsig = 1
if sys.argv[1] != "0":
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(sys.argv[1]), 0, 0, 0)
print(os.getpid(), flush=True)
time.sleep(600)
"""
LOCKS = LOCK + "kept = lock()\n"
each_lock = pytest.mark.parametrize("locks", [False, True], ids=["locks nothing", "locks"])
each_way = pytest.mark.parametrize("supervised", [False, True], ids=["bare", "supervised"])


def command(supervised: bool, *program: str) -> list[str]:
    return [*([MLOCKWIPE, "run", "--"] if supervised else []), *program]


@each_way
@each_lock
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGCONT", "SIGRTMIN"])
def test_a_signal_to_the_parent_is_for_the_parent(name: str, locks: bool, supervised: bool) -> None:
    tells = (LOCKS if locks else "") + TELLS.format(name)
    number = getattr(signal, name)
    with marked() as processes:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        try:
            program = subprocess.Popen(
                command(supervised, sys.executable, "-c", tells),
                env=processes.environment,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
            )
            assert program.wait(TIMEOUT) == 0
            assert signal.sigtimedwait([number], 10)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@each_way
def test_kill_of_a_shell_that_has_ended_tells_the_parent_too(supervised: bool) -> None:
    with marked() as processes:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            script = "/bin/kill -USR1 $PPID; exit 3"
            program = subprocess.Popen(
                command(supervised, "sh", "-c", script),
                env=processes.environment,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
            )
            assert program.wait(TIMEOUT) == 3
            assert signal.sigtimedwait([signal.SIGUSR1], 10)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@each_way
@each_lock
@pytest.mark.parametrize("asked", [signal.SIGTERM, 0], ids=["asked", "not asked"])
def test_the_death_of_the_parent_brings_the_signal_that_was_asked_for(
    asked: int, locks: bool, supervised: bool
) -> None:
    """By PR_SET_PDEATHSIG. The front's parent dies; the program's own is the supervisor, which does not."""
    program = command(supervised, sys.executable, "-c", (LOCKS if locks else "") + ASKS, str(asked))
    read_end, write_end = os.pipe()
    with marked() as processes:
        middle = subprocess.Popen(
            ["sh", "-c", '"$@" & wait', "sh", *program], env=processes.environment, stdout=write_end
        )
        os.close(write_end)
        pid = int(os.read(read_end, 20))
        pidfd = os.pidfd_open(pid)
        middle.kill()
        middle.wait()
        try:
            ended = _ends(pidfd, 30 if asked else 0.5)
            assert ended == bool(asked)
            assert ended or Path(f"/proc/{pid}").exists()
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            os.close(read_end)


def _ends(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))

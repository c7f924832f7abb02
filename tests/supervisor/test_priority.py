# SPDX-License-Identifier: MIT
"""A program of real time does not wait for a supervisor that its own less urgent threads keep from running."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.python_lock import LOCK
from tests.support.running import MLOCKWIPE, marked

BECOMES = "os.sched_setscheduler(0, os.SCHED_{}, os.sched_param({}))\n"
LOCKS = LOCK + "kept = lock()\n"
WAITS = "print('ready', flush=True)\ninput()\n"
SETS_ATTRIBUTES = """
import struct
attributes = ctypes.create_string_buffer(struct.pack("=IIQiIQQQ", 48, os.SCHED_RR, 0, 0, 30, 0, 0, 0))
assert libc.syscall(314, 0, attributes, 0) == 0
"""


def _may_be_real_time() -> bool:
    done = subprocess.run([sys.executable, "-c", "import os\n" + BECOMES.format("FIFO", 1)], capture_output=True)
    return done.returncode == 0


@contextmanager
def supervisor_of(program: str) -> Iterator[int]:
    with (
        marked() as processes,
        subprocess.Popen(
            [MLOCKWIPE, "run", "--", sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=processes.environment,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (pid,) = processes.named("mlockwipe-super")
        yield pid
        process.communicate(b"\n")


@pytest.mark.skipif(not _may_be_real_time(), reason="needs the right to real-time priorities")
@pytest.mark.parametrize(
    ("program", "level"),
    [
        (LOCKS, 0),
        (LOCKS + BECOMES.format("FIFO", 60), 61),
        (LOCKS + BECOMES.format("RR", 99), 99),
        (LOCKS + SETS_ATTRIBUTES, 31),
        (LOCKS + BECOMES.format("FIFO", 20) + "os.sched_setparam(0, os.sched_param(40))\n", 41),
        (LOCKS + BECOMES.format("FIFO", 20) + BECOMES.format("OTHER", 0), 21),
        ("import os\n" + BECOMES.format("FIFO", 60) + LOCKS, 61),
        ("import os\n" + BECOMES.format("FIFO", 60), 0),
        (LOCKS + BECOMES.format("BATCH", 0), 0),
    ],
    ids=["none", "fifo", "highest", "attributes", "parameter", "given up", "before the lock", "no lock", "batch"],
)
def test_the_supervisor_is_above_the_most_urgent_task(program: str, level: int) -> None:
    with supervisor_of(program + WAITS) as pid:
        assert os.sched_getparam(pid).sched_priority == level
        assert (os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO) == bool(level)

# SPDX-License-Identifier: MIT
"""What must not change for a program because it is traced by `mlockwipe run`."""

import os
import signal
import time

import pytest

from tests.support.attaching import MLOCKWIPE, PART, UNSHARE, obedient
from tests.support.c_programs import needs_gcc
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody

pytestmark = needs_gcc


@pytest.mark.parametrize("threads", [1, 5])
def test_a_signal_that_it_ignores_interrupts_nothing(threads: int) -> None:
    with obedient(threads, (*MLOCKWIPE, "run", "--")) as (program, _):
        program.tell("b")
        time.sleep(0.1)
        assert program.tell("?") == ["well"]
        program.order("x")
        assert program.end() == 0


@pytest.mark.needs_pid_namespace
def test_process_1_of_a_pid_namespace_ends_and_is_wiped() -> None:
    """It kills all others in there first, its keeper too, and waits for their ends."""
    with obedient(1, (*MLOCKWIPE, "run", "--", *UNSHARE)) as (program, processes):
        (pid,) = processes.named("obedient")
        os.kill(pid, signal.SIGKILL)
        program.end()
        pages = program.look()
        assert (pages.total, pages.dirty) == (PART, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@needs_nobody
def test_the_exec_of_a_vfork_child_leaves_an_undumpable_parent_its_memory() -> None:
    """An ordinary user is not told by the kernel whether an undumpable process shares memory with its child."""
    with mlockwipe_for_nobody() as mlockwipe, obedient(1, (*AS_NOBODY, *mlockwipe, "run", "--")) as (program, _):
        assert program.tell("ds") == ["undumpable", "ran it"]
        program.order("x")
        assert program.end() == 0
        pages = program.look()
        assert (pages.total, pages.dirty) == (PART, 0)

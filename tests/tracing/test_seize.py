# SPDX-License-Identifier: MIT
"""Which tasks of a process are traced from now on."""

import os
import signal
import threading

import pytest

from mlockwipe.linux import io_uring, procfs
from mlockwipe.linux.io_uring import Ring
from mlockwipe.tracing.seize import seize_sharing
from tests.support.traced import child


def threads_and_a_ring() -> None:
    for _ in range(2):
        threading.Thread(target=signal.pause, daemon=True).start()
    Ring(1, io_uring.SETUP_SQPOLL)
    signal.pause()


def test_a_thread_that_the_kernel_has_made_for_io_uring_is_left_alone() -> None:
    try:
        Ring(1).close()
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    with child(threads_and_a_ring) as pid:
        while len(procfs.tasks(pid)) < 4:
            os.sched_yield()
        seized = seize_sharing(pid, pid, lambda _: False, 0)
        traced = {tid for tid, _ in seized.members}
        assert len(traced) == 3
        assert not any(procfs.works_for_kernel(tid) for tid in traced)
        (left,) = set(procfs.tasks(pid)) - traced
        assert procfs.works_for_kernel(left)

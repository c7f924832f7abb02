# SPDX-License-Identifier: MIT
"""What the guardian does with the keepers that a killed supervisor has left."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from mlockwipe.linux import aio, libc, prctl, ptrace, signals
from mlockwipe.memory import wipe
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.keeper import NAME
from mlockwipe.supervisor import recovery
from tests.support.traced import await_sleep, child

_SYS_RT_SIGPROCMASK = 14


def block_all() -> None:
    """Those that the C library keeps for itself, too, as ptrace does."""
    mask = ctypes.c_uint64(2**64 - 1)
    assert libc.syscall(_SYS_RT_SIGPROCMASK, signals.SIG_BLOCK, ctypes.addressof(mask), 0, 8, 0, 0) == 0


def _has_aio_ring(pid: int) -> bool:
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return "/[aio]" in maps.read()


def take_the_name() -> None:
    prctl.set_name(NAME)


def close_all() -> None:
    os.closerange(0, 1 << 16)


@contextmanager
def asleep(*made: Callable[[], object]) -> Iterator[int]:
    """A child that has called all of these."""
    pid = os.fork()
    if pid == 0:
        try:
            for one in made:
                one()
            while True:
                signal.pause()
        finally:
            os._exit(1)
    try:
        await_sleep(pid)
        yield pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):  # recovery has ended it
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def keeper() -> Iterator[int]:
    """A child that looks like a keeper, of a program that has used native AIO."""
    with asleep(block_all, take_the_name, lambda: aio.setup(8), os.setsid, close_all) as pid:
        yield pid


@pytest.fixture
def rings_at_the_wipe(keeper: int, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each wipe whether the keeper still had an AIO ring; nothing is written."""
    seen: list[bool] = []

    def look(_: object, runs: list[object]) -> int:
        seen.append(_has_aio_ring(keeper))
        return len(runs)

    monkeypatch.setattr(wipe, "clear_by_writing", look)
    return seen


def test_native_aio_is_ended_before_the_wipe(keeper: int, rings_at_the_wipe: list[bool]) -> None:
    assert _has_aio_ring(keeper)
    assert recovery.recover(Journal(), {}) > 0
    assert rings_at_the_wipe == [False]
    with pytest.raises(ProcessLookupError):
        os.kill(keeper, 0)


def test_memory_is_wiped_where_native_aio_can_not_be_ended(
    keeper: int, rings_at_the_wipe: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(ptrace, "seize", refuse)
    assert recovery.recover(Journal(), {}) > 0
    assert rings_at_the_wipe == [True]
    with pytest.raises(ProcessLookupError):
        os.kill(keeper, 0)


LIKENESSES: dict[str, list[Callable[[], object]]] = {
    "name": [take_the_name],
    "name and signals": [take_the_name, block_all],
    "name, signals and session": [take_the_name, block_all, os.setsid],
    "name, signals and descriptors": [take_the_name, block_all, close_all],
    "all but the name": [block_all, os.setsid, close_all],
}


@pytest.mark.parametrize("likeness", LIKENESSES)
def test_a_program_that_is_something_like_a_keeper_is_left_alone(likeness: str) -> None:
    with asleep(*LIKENESSES[likeness]) as pid:
        assert recovery.recover(Journal(), {}) == 0
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def test_one_that_is_busy_does_not_hold_up_the_others(keeper: int, rings_at_the_wipe: list[bool]) -> None:
    def body() -> None:
        prctl.set_name(NAME)
        while True:
            pass

    with child(body):
        begun = time.monotonic()
        assert recovery.recover(Journal(), {}) > 0
        assert time.monotonic() - begun < recovery._PATIENCE / 2
    assert rings_at_the_wipe == [False]

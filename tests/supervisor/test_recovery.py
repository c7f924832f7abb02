# SPDX-License-Identifier: MIT
"""What the guardian does with the keepers that a killed supervisor has left."""

import os
import signal
from collections.abc import Iterator

import pytest

from mlockwipe.linux import aio, prctl, ptrace, signals
from mlockwipe.memory import wipe
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.keeper import NAME
from mlockwipe.supervisor import recovery


def _has_aio_ring(pid: int) -> bool:
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return "/[aio]" in maps.read()


@pytest.fixture
def keeper() -> Iterator[int]:
    """A child that looks like a keeper, of a program that has used native AIO."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signals.change_mask(signals.SIG_BLOCK, signals.ALL)
            prctl.set_name(NAME)
            aio.setup(8)
            os.close(told)
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # recovery has ended it


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

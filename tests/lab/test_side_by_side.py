# SPDX-License-Identifier: MIT
"""Jobs in processes of their own: what they tell and return, how they fail, and that none is left behind."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlockwipe.errors import Refused
from mlockwipe.interruption import ends_by_signal, held, let_in
from mlockwipe_lab.vm.side_by_side import side_by_side

Tell = Callable[[object], object]


def nothing(number: int, news: object) -> None:
    """Takes no notice of news."""


@pytest.fixture(autouse=True)
def none_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("mlockwipe_lab.vm.side_by_side._room", lambda: 2)
    yield
    assert not multiprocessing.active_children()


def squares(number: int, tell: Tell) -> int:
    tell(number)
    return number * number


def test_every_job_tells_and_returns() -> None:
    news = []
    returned = dict(side_by_side(squares, [(n,) for n in range(5)], lambda number, told: news.append((number, told))))
    assert returned == {n: n * n for n in range(5)}
    assert sorted(news) == [(n, n) for n in range(5)]


def meets(place: str, number: int, others: int, tell: Tell) -> bool:
    """Whether the others are there at the same time."""
    (Path(place) / str(number)).touch()
    deadline = time.monotonic() + 20
    while len(os.listdir(place)) < others and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(os.listdir(place)) >= others


@pytest.mark.parametrize(("room", "at_once"), [(1, False), (2, True)])
def test_as_many_as_there_is_room_for(
    room: int, at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlockwipe_lab.vm.side_by_side._room", lambda: room)
    others = 2 if at_once else 1
    assert dict(side_by_side(meets, [(str(tmp_path), n, others) for n in range(2)], nothing)) == {0: True, 1: True}


def refuses(number: int, tell: Tell) -> int:
    if number == 1:
        raise Refused("there is no such thing")
    time.sleep(60)
    return number


def test_what_one_raises_ends_all() -> None:
    began = time.monotonic()
    with pytest.raises(Refused, match="no such thing"):
        list(side_by_side(refuses, [(0,), (1,)], nothing))
    assert time.monotonic() - began < 30


def dies(tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_is_killed_is_told() -> None:
    with pytest.raises(RuntimeError, match="ended with -9"):
        list(side_by_side(dies, [()], nothing))


def cleans_up(file: str, tell: Tell) -> None:
    with held():
        try:
            with let_in():
                tell("there")
                time.sleep(60)
        finally:
            Path(file).write_text("cleaned up")


def test_a_signal_that_ends_the_lab_lets_each_clean_up(tmp_path: Path) -> None:
    files = [tmp_path / "0", tmp_path / "1"]
    there = []
    began = time.monotonic()

    def hear(number: int, news: object) -> None:
        there.append(number)
        if len(there) == len(files):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as end, ends_by_signal():
        for _ in side_by_side(cleans_up, [(str(file),) for file in files], hear):
            pass
    assert end.value.code == 143
    assert time.monotonic() - began < 30
    assert [file.read_text() for file in files] == ["cleaned up"] * 2

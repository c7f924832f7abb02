# SPDX-License-Identifier: MIT
"""Signals that end the lab: when they do, and when they wait."""

import signal
from collections.abc import Iterator

import pytest

from mlockwipe.interruption import ENDING, ends_by_signal, held, let_in


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == handler


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_the_block_with_the_status_of_a_shell(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as end, ends_by_signal():
        signal.raise_signal(number)
    assert end.value.code == 128 + number


def test_a_signal_waits_for_the_end_of_what_may_not_be_interrupted() -> None:
    steps = []
    with pytest.raises(SystemExit) as end, ends_by_signal(), held():
        signal.raise_signal(signal.SIGTERM)
        steps.append("started")
        with held():
            steps.append("noted")
        steps.append("kept")
    assert end.value.code == 143
    assert steps == ["started", "noted", "kept"]


def test_a_signal_that_waits_is_let_in() -> None:
    steps = []
    with pytest.raises(SystemExit), ends_by_signal(), held():
        signal.raise_signal(signal.SIGINT)
        try:
            with let_in():
                steps.append("never done")
        finally:
            steps.append("ended")
    assert steps == ["ended"]


def test_only_the_first_signal_counts() -> None:
    steps = []
    with pytest.raises(SystemExit) as end, ends_by_signal():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            with held():
                steps.append("cleaned up")
    assert end.value.code == 130
    assert steps == ["cleaned up"]


def test_another_failure_does_not_swallow_the_signal() -> None:
    with pytest.raises(SystemExit), ends_by_signal():
        try:
            with held():
                signal.raise_signal(signal.SIGTERM)
                raise ValueError
        except ValueError:
            pytest.fail("went on")


def test_a_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_by_signal():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_after_the_block_a_new_one_begins_anew() -> None:
    for _ in range(2):
        with pytest.raises(SystemExit), ends_by_signal():
            signal.raise_signal(signal.SIGTERM)

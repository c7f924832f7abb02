# SPDX-License-Identifier: MIT
"""Signals that end a long run: the first of them does, and nothing is left behind.

Python raises the end wherever the main thread happens to be, which may be between the start of a process and the
line that takes care of it. There, and while things are ended, the signal is held back.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _State:
    depth = 0  # of `held`
    seen = False
    due = 0  # the signal that is held back


@contextmanager
def ends_by_signal() -> Iterator[None]:
    """The block ends as a shell says that a command did that was killed by the signal: status 130, 143 or 129.

    Any later signal is ignored, for an impatient second Ctrl-C would only interrupt the clean-up. So is one that was
    ignored before, by nohup or a shell's `&`.
    """
    _State.seen, _State.due = False, 0
    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _arrive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """A signal that arrives within the block ends it when it is over, or where it lets signals in."""
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
        _deliver()


@contextmanager
def let_in() -> Iterator[None]:
    """A part of a `held` block that may be ended anywhere."""
    _State.depth -= 1
    try:
        _deliver()
        yield
    finally:
        _State.depth += 1


def _arrive(number: int, _frame: object) -> None:
    if not _State.seen:
        _State.seen, _State.due = True, number
        _deliver()


def _deliver() -> None:
    number = _State.due
    if number and not _State.depth:
        _State.due = 0
        raise SystemExit(128 + number)

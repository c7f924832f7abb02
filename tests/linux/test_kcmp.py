# SPDX-License-Identifier: MIT
"""Whether two tasks share their memory, with kcmp and without."""

import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from mlockwipe.linux import kcmp
from tests.support.traced import child

QUESTIONS = {"kcmp": kcmp.same_address_space, "core filter": kcmp.same_by_core_filter}
questions = pytest.mark.parametrize("same", QUESTIONS.values(), ids=QUESTIONS)


@pytest.fixture
def thread() -> Iterator[int]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert thread.native_id is not None
    yield thread.native_id
    done.set()
    thread.join()


def core_filter() -> str:
    with open("/proc/self/coredump_filter", encoding="ascii") as file:
        return file.read()


@questions
def test_a_thread_shares_the_memory_and_a_forked_child_does_not(
    same: Callable[[int, int], bool], thread: int
) -> None:
    before = core_filter()
    with child(signal.pause) as forked:
        for differs in (False, True):
            if differs:  # by chance it could be as the parent's would be
                with open(f"/proc/{forked}/coredump_filter", "w", encoding="ascii") as file:
                    file.write(hex(int(before, 16) ^ 1 << 8))
            assert same(os.getpid(), thread)
            assert not same(os.getpid(), forked)
            assert not same(forked, thread)
    assert core_filter() == before


@questions
def test_one_that_is_gone_is_an_error(same: Callable[[int, int], bool]) -> None:
    for pair in ((os.getpid(), 1 << 22), (1 << 22, os.getpid())):
        with pytest.raises((ProcessLookupError, FileNotFoundError)):
            same(*pair)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_without_kcmp_the_core_filter_tells(error: int, thread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kcmp, "syscall", lambda *_: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: error)
    assert kcmp.same_address_space(os.getpid(), thread)

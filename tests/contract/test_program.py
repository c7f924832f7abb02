# SPDX-License-Identifier: MIT
"""What a case's program says to its judge, and the pattern."""

import ctypes
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlockwipe.contract.pattern import FIRST, SECOND, is_painted, is_zero, paint
from mlockwipe.contract.program import PAGE, Barrier, Program, Signal, refused
from mlockwipe.linux import mm, mman


@pytest.fixture
def page() -> Iterator[int]:
    """The address of four pages."""
    at = mm.mmap(0, 4 * PAGE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    yield at
    mm.munmap(at, 4 * PAGE)


class Judge:
    """One who hears and does not answer. `channel` is the program's end."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        ours.setblocking(False)
        self._ours = ours
        self.channel = theirs.fileno()

    def heard(self) -> list[dict[str, object]]:
        messages = []
        while True:
            try:
                messages.append(json.loads(self._ours.recv(65536)))
            except BlockingIOError:
                return messages


@pytest.fixture
def judge() -> Iterator[Judge]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Judge(ours, theirs)


@pytest.fixture
def program(judge: Judge) -> Program:
    return Program(channel=judge.channel)


def test_paint_fills_pages_and_no_more(page: int) -> None:
    paint(page + PAGE, 2)
    assert is_painted(page + PAGE, 2)
    assert is_zero(page, 1)
    assert is_zero(page + 3 * PAGE, 1)
    whole = FIRST.to_bytes(8, "little") + SECOND.to_bytes(8, "little")
    assert ctypes.string_at(page + PAGE, 2 * PAGE) == whole * (2 * PAGE // 16)


@pytest.mark.parametrize("offset", [0, 8, 2048, 2 * PAGE - 1])
def test_one_byte_less_is_not_painted(page: int, offset: int) -> None:
    paint(page, 2)
    ctypes.c_ubyte.from_address(page + offset).value ^= 1
    assert not is_painted(page, 2)


def test_one_byte_is_not_zero(page: int) -> None:
    assert is_zero(page, 4)
    ctypes.c_ubyte.from_address(page + 4 * PAGE - 1).value = 1
    assert not is_zero(page, 4)


def test_a_secret_is_locked_and_plain_memory_is_not(program: Program) -> None:
    def locked() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmLck"))

    before = locked()
    plain = program.plain(4)
    assert locked() == before
    secret = program.secret(4)
    assert locked() == before + 4 * PAGE // 1024
    assert is_painted(plain, 4)
    assert is_painted(secret, 4)
    mm.munmap(plain, 4 * PAGE)
    mm.munmap(secret, 4 * PAGE)


def test_facts_that_hold_are_counted(program: Program, judge: Judge, page: int) -> None:
    paint(page, 4)
    program.check("number", 1, 1)
    program.intact("content", page, 4)
    program.unharmed("file", True)
    assert judge.heard() == [{"checked": 1}] * 3


def test_facts_that_do_not_hold_are_told(program: Program, judge: Judge, page: int) -> None:
    program.check("number", 1, 2)
    program.intact("content", page, 4)
    program.unharmed("file", False)
    assert judge.heard() == [
        {"failed": "number: 1 instead of 2"},
        {"damaged": "content"},
        {"damaged": "file"},
    ]


def test_pages_shown_are_in_the_pipe(judge: Judge, page: int) -> None:
    read_end, write_end = os.pipe()
    program = Program(write_end, judge.channel)
    paint(page, 4)
    program.show(page, 4)
    ctypes.memset(page, 0, PAGE)
    content = os.read(read_end, 4 * PAGE)
    os.close(read_end)
    os.close(write_end)
    assert content[:PAGE] == bytes(PAGE)  # the pages themselves, no copy
    assert content[PAGE:] == ctypes.string_at(page + PAGE, 3 * PAGE)
    assert judge.heard() == [{"shown": 4}]


def test_more_than_the_pipe_holds_is_an_error(judge: Judge) -> None:
    read_end, write_end = os.pipe()
    program = Program(write_end, judge.channel)
    at = program.plain(17)
    with pytest.raises(RuntimeError, match="no room"):
        program.show(at, 17)
    os.close(read_end)
    os.close(write_end)
    mm.munmap(at, 17 * PAGE)
    assert judge.heard() == []


def fails() -> None:
    raise ValueError("out of luck")


def test_how_a_child_ended_is_a_fact(judge: Judge) -> None:
    class Unseeing(Program):
        def look(self) -> None:
            """There is no judge here to answer."""

    program = Unseeing(channel=judge.channel)
    program.reap(program.fork(lambda: os._exit(3)), 3)
    program.reap(program.fork(lambda: os._exit(3)), 4)
    assert judge.heard() == [{"checked": 1}, {"failed": "how the child ended: 3 instead of 4"}]


def test_a_child_that_fails_says_so(program: Program, judge: Judge) -> None:
    _, status = os.waitpid(program.fork(fails), 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert judge.heard() == [{"failed": "in a child: ValueError('out of luck')"}]


def test_without_a_judge_nothing_is_said_and_nothing_waits() -> None:
    program = Program()
    at = program.plain(1)
    program.show(at, 1)
    program.look()
    program.check("number", 1, 2)
    mm.munmap(at, PAGE)


def test_cannot_ends_the_program(program: Program, judge: Judge) -> None:
    with pytest.raises(SystemExit) as ended:
        program.cannot("no such call")
    assert ended.value.code is None
    assert judge.heard() == [{"cannot": "no such call"}]


def test_refused_names_the_error() -> None:
    assert refused(os.close, 999_999) == "EBADF"
    assert refused(os.getpid) is None


def test_nobody_leaves_a_barrier_before_the_other_is_there(program: Program) -> None:
    barrier, left = Barrier(), Signal()

    def body() -> None:
        barrier.wait(1)
        left.give(time.monotonic_ns())

    pid = program.fork(body)
    time.sleep(0.05)
    arrived = time.monotonic_ns()
    barrier.wait(0)
    assert left.wait() >= arrived
    os.waitpid(pid, 0)

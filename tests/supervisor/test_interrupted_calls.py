# SPDX-License-Identifier: MIT
"""Calls that sleep while signals come which the program ignores: bare none of them notices.

To a task that is traced the kernel brings such signals: each interrupts the call.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.attaching import attaching
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import Outcome, run_bare, run_supervised
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody

pytestmark = needs_gcc

TIMED = (
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "nanosleep", "rt_sigtimedwait", "semtimedop"),
    *(
        "io_getevents",
        "ring",
        "recv",
        "recv-tcp",
        "recv-dgram",
        "timed-recvmsg",
        "timed-read",
        "timed-write",
        "accept",
    ),
    *("timed-waitall", "timed-waitall-tcp"),
)
WRITING = (
    *("write-pipe", "write-unix", "write-tcp", "write-tty", "writev-pipe", "writev-tcp", "writev-tty"),
    *("sendmsg-unix", "sendmsg-tcp", "send-unix", "send-tcp", "sendfile-pipe", "sendfile-tcp"),
)
OTHERS = (
    *("waitall", "waitall-tcp", "waitall-msg", "waitall-msg-tcp", "waitall-end", "zero", "urandom", "getrandom"),
    *("completions", "ring-submits", "inotify", "write-pipe-nonblock", "send-dontwait"),
)
ABIS = [
    pytest.param(("-m32",), id="32-bit", marks=pytest.mark.needs_gcc("gcc-multilib", "-m32")),
    pytest.param((), id="64-bit"),
]
each_abi = pytest.mark.parametrize("abi", ABIS)


def differ(calls: tuple[str, ...], signals: str, abi: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The calls of which something else comes under the supervisor, with what came of them bare and there."""
    program = compiled("interrupted", *abi)

    def compare(call: str) -> tuple[Outcome, Outcome]:
        command = [program, call, signals]
        return run_bare(command), run_supervised(command)

    with ThreadPoolExecutor(4) as pool:
        outcomes = dict(zip(calls, pool.map(compare, calls), strict=True))
    assert all(outcome.report["processes_attached"] for _, outcome in outcomes.values())
    return {call: [one.out for one in both] for call, both in outcomes.items() if both[0].result != both[1].result}


@each_abi
@pytest.mark.parametrize("calls", [TIMED, WRITING, OTHERS], ids=["timed", "writing", "others"])
def test_a_signal_that_is_ignored_changes_no_call(calls: tuple[str, ...], abi: tuple[str, ...]) -> None:
    assert differ(calls, "ignored", abi) == {}


def test_without_any_signal_they_are_the_same_too() -> None:
    assert differ(TIMED + OTHERS, "none") == {}


def test_a_signal_that_a_handler_takes_interrupts_as_ever_and_nothing_is_transferred_twice() -> None:
    assert differ(TIMED[:-2] + WRITING + OTHERS, "mixed") == {}


def test_to_be_stopped_and_continued_interrupts_what_it_does_without_the_supervisor() -> None:
    assert differ(TIMED[:-2], "stopped") == {}


@needs_nobody
def test_of_an_ordinary_user() -> None:
    program = compiled("interrupted")
    with mlockwipe_for_nobody() as mlockwipe:
        for call in ("recv", "write-pipe", "waitall-msg"):
            bare = run_bare([*AS_NOBODY, program, call])
            supervised = run_supervised([program, call], mlockwipe=(*AS_NOBODY, *mlockwipe))
            assert supervised.result == bare.result


def test_a_program_that_is_attached_to_has_its_timeouts() -> None:
    """What is transferred short stays short there: a program that goes on without its tracer needs its registers."""
    for call in ("epoll_wait", "recv", "semtimedop", "ring"):
        with subprocess.Popen(
            [compiled("interrupted"), call, "ignored", "late"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            with attaching(str(program.pid)) as attachment:
                attachment.await_covered(program.pid)
                out, _ = program.communicate("\n")
            assert out == run_bare([compiled("interrupted"), call]).out

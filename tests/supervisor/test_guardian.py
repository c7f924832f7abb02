# SPDX-License-Identifier: MIT
"""What the guardian and its supervisor report to the front, and what becomes of a program whose supervisor dies.

The test stands for the front. The program has never locked anything, so nobody traces it and it lives on.
"""

import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from mlockwipe.linux import signals
from mlockwipe.linux.read_file import proc_directory
from mlockwipe.memory.filters import filter_one
from mlockwipe.supervisor import guardian, launch, short_run
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.custody import Entrusted
from mlockwipe.supervisor.guardian import guard, let_go_of_shell
from mlockwipe.supervisor.options import Options
from tests.support.traced import child, descriptors, subreaper

STATUS_7 = ["sh", "-c", "exit 7"]
KILLS_ITSELF = ["sh", "-c", "kill -9 $$"]
WAITS = ["sh", "-c", "read line; exit 7"]


class Guarded:
    """A guardian, its supervisor and the command, and what they report."""

    def __init__(self, pid: int, channel: Channel, standard_input: int) -> None:
        self.pid = pid
        self._channel = channel
        self._standard_input = standard_input

    def next(self) -> str:
        """The next message to the front; "" when nobody is left who could send one."""
        message = self._channel.receive()
        if message is None:
            return ""
        if message[0] == "started":
            self._channel.send("apart")  # the program waits for it
        return f"{message[0]} {message[1]}".rstrip()

    def all(self) -> list[str]:
        return list(iter(self.next, ""))

    def started(self) -> tuple[int, int]:
        """Program and supervisor, from the message that is due now."""
        word, program, supervisor = self.next().split()
        assert word == "started"
        return int(program), int(supervisor)

    def let_program_end(self) -> None:
        os.write(self._standard_input, b"\n")


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@contextmanager
def guarded(command: Sequence[str]) -> Iterator[Guarded]:
    options = Options(list(command))
    ours, theirs = Channel.pair()
    read_end, write_end = os.pipe()
    code = filter_one()

    def body() -> None:
        os.dup2(read_end, 0)
        for fd in (ours.fileno(), read_end, write_end):
            os.close(fd)
        mask = signals.change_mask(signals.SIG_BLOCK, [signals.SIGCHLD, signals.SIGTERM])
        try:
            guard(options, code, mask, theirs)
        except Exception:
            guardian.tell_defect(theirs)

    with subreaper(), child(body) as pid:
        theirs.close()
        os.close(read_end)
        yield Guarded(pid, ours, write_end)
        os.close(write_end)
        ours.close()


# -- what is reported


@pytest.mark.parametrize(
    ("command", "last"), [(STATUS_7, "exited 7"), (KILLS_ITSELF, "killed 9"), (["true"], "exited 0")]
)
def test_the_end_of_the_program_is_the_last_word(command: list[str], last: str) -> None:
    with guarded(command) as run:
        program, supervisor = run.started()
        assert program != supervisor != run.pid
        assert run.all() == ["ended", last]


def test_what_the_program_leaves_running_keeps_the_supervisor() -> None:
    with guarded(["sh", "-c", "exec 3<&0; read line <&3 & exit 7"]) as run:
        _, supervisor = run.started()
        assert run.next() == "exited 7"  # and it has not ended
        assert is_there(supervisor)
        run.let_program_end()
        assert run.all() == []
        assert not is_there(supervisor)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/nonexistent", "failed 127 /nonexistent: command not found"),
        ("/", "failed 126 /: Permission denied"),
    ],
)
def test_why_the_command_was_not_executed_is_the_last_word(command: str, message: str) -> None:
    with guarded([command]) as run:
        run.started()
        assert run.all() == [message]


def test_a_supervisor_that_can_not_be_started_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, times = os.fork, iter([True, False])

    def first_only() -> int:
        if next(times):
            return fork()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", first_only)
    with guarded(STATUS_7) as run:
        (message,) = run.all()
        assert message.startswith("failed 125 no more processes can be made here")


# -- the death of the supervisor

TAKES_OVER = "say the supervisor was killed; its guardian wipes what it left and takes its place"


def dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_takes_the_place_of_a_killed_supervisor() -> None:
    with guarded(WAITS) as run:
        program, supervisor = run.started()
        os.kill(supervisor, signal.SIGKILL)
        assert run.next() == TAKES_OVER
        assert run.started() == (program, run.pid)
        run.let_program_end()
        assert run.all() == ["ended", "exited 7"]


def test_it_does_so_after_a_defect_which_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr(short_run, "wait", fails)
    with guarded(STATUS_7) as run:
        run.started()
        defect = run.next()
        assert defect.startswith("say this is a defect of mlockwipe, please report it:")
        assert "ZeroDivisionError: of the test" in defect
        assert run.next() == TAKES_OVER
        run.started()
        assert run.all() == ["ended", "exited 7"]


def test_the_end_of_a_program_that_the_supervisor_has_reaped_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_run, "report", dies)
    with guarded(STATUS_7) as run:
        program, _ = run.started()
        assert run.next() == TAKES_OVER
        assert run.started() == (program, run.pid)
        assert run.all() == ["ended", "exited 7"]


def test_a_supervisor_that_dies_before_it_has_started_anything_has_no_heir(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "start", dies)
    with guarded(STATUS_7) as run:
        assert run.all() == []


# -- what the supervisor entrusts to it


def test_it_keeps_the_files_of_each_keeper_until_that_is_gone() -> None:
    left = Entrusted()
    listener, *files = (os.open("/dev/null", os.O_RDONLY) for _ in range(4))
    left._take("program", "17", [listener])
    left._take("keeper", "18", files)
    assert (left.program, left.listener, left.files) == (17, listener, {18: files})
    left._take("gone", "19", [])  # of which nobody has heard
    left._take("gone", "18", [])
    assert left.files == {}
    for fd in files:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)
    os.close(listener)


# -- what came from the shell


def _left() -> dict[int, str]:
    """The descriptors, but for that of /proc, which is our own."""
    return {fd: file for fd, file in descriptors(os.getpid()).items() if fd != proc_directory()}


def test_it_lets_go_of_all_descriptors_but_those_that_are_named() -> None:
    def body() -> None:
        kept, *_ = os.pipe()
        before = descriptors(os.getpid())
        let_go_of_shell(kept)
        assert len(before) > 4
        assert _left() == {0: "/dev/null", 1: "/dev/null", 2: "/dev/null", kept: before[kept]}
        assert os.getcwd() == "/"

    assert status_of(body) == 0


@pytest.mark.parametrize("named", [0, 1, 2])
def test_it_keeps_one_of_the_first_three_that_is_named(named: int) -> None:
    def body() -> None:
        before = descriptors(os.getpid())
        let_go_of_shell(named)
        assert _left() == {fd: before[fd] if fd == named else "/dev/null" for fd in range(3)}

    assert status_of(body) == 0


def status_of(body: Callable[[], object]) -> int:
    with child(body) as pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

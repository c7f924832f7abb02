# SPDX-License-Identifier: MIT
"""What the front does with each message, and with signals; the test stands for supervisor, guardian and program."""

import ctypes
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlockwipe.linux import procfs, signals
from mlockwipe.linux.wait import End
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.front import _CAUGHT, _Front
from mlockwipe.supervisor.options import Options
from mlockwipe.tracing.observer import Unobserved
from tests.support.traced import await_sleep, child, descriptors, end_group, go_on_until, subreaper

SUPERVISOR = 1 << 22  # no process has this number, which is the largest a kernel allows
SI_QUEUE = -1
SYS_RT_SIGQUEUEINFO = 129
libc = ctypes.CDLL(None, use_errno=True)


class Front:
    """A front that stands in a process of its own, and its guardian, which ends when it is told to.

    `pid` and `guardian`: theirs. `channel`: where the front hears from. `standard_error`: what it has said.
    """

    def __init__(self, pid: int, guardian: int, channel: Channel, standard_error: int, end_guardian: int) -> None:
        self.pid = pid
        self.guardian = guardian
        self.channel = channel
        self._standard_error = standard_error
        self._end_guardian = end_guardian
        self._hung_up = False

    def end(self) -> int:
        """Wait for its end: the exit status, or the signal negated."""
        end = go_on_until(lambda event: isinstance(event, End) and event.tid == self.pid)
        assert isinstance(end, End)
        return end.status if end.exited else -end.status

    def said(self) -> str:
        """All that it has said, once it has ended."""
        try:
            return os.read(self._standard_error, 1 << 16).decode()
        except BlockingIOError:
            return ""

    def let_guardian_end(self) -> None:
        os.write(self._end_guardian, b"!")

    def send(self, word: str, *values: object) -> None:
        assert self.channel.send(word, *values)

    def hang_up(self) -> None:
        if not self._hung_up:
            self.channel.close()
        self._hung_up = True

    def descriptors(self) -> dict[int, str]:
        return descriptors(self.pid)

    def await_handled(self) -> None:
        """Return when it has read all messages and waits for more."""
        while _unread(self.channel.fileno()):
            os.sched_yield()
        await_sleep(self.pid)


def _unread(fd: int) -> int:
    """How much memory is taken by messages that were sent and not received (SIOCOUTQ)."""
    room = bytearray(4)
    fcntl.ioctl(fd, termios.TIOCOUTQ, room)
    return int.from_bytes(room, "little")


@contextmanager
def front(*, verbosity: int = 0, audits: bool = False) -> Iterator[Front]:
    options = Options(["program"], verbosity=verbosity, watch=(lambda _: Unobserved()) if audits else None)
    ours, theirs = Channel.pair()
    standard_error, its_standard_error = os.pipe()
    os.set_blocking(standard_error, False)
    may_end, end_guardian = os.pipe()
    told, tell = os.pipe()

    def body() -> None:
        guardian = os.fork()
        if guardian == 0:
            for fd in (end_guardian, ours.fileno(), theirs.fileno()):
                os.close(fd)
            os.setpgid(0, 0)
            os.write(tell, os.getpid().to_bytes(4, "little"))
            os.close(tell)
            os.read(may_end, 1)
            os._exit(0)
        while os.getpgid(guardian) != guardian:
            os.sched_yield()
        os.dup2(its_standard_error, 2)
        signals.change_mask(signals.SIG_BLOCK, _CAUGHT)
        for fd in (ours.fileno(), its_standard_error, standard_error, end_guardian, told, tell):
            os.close(fd)
        os._exit(_Front(options, theirs, guardian).stand())

    with subreaper(), child(body) as pid:
        for fd in (theirs.fileno(), its_standard_error, may_end, tell):
            os.close(fd)
        guardian = int.from_bytes(os.read(told, 4), "little")
        assert os.read(told, 1) == b""  # the front is about to stand
        stand = Front(pid, guardian, ours, standard_error, end_guardian)
        try:
            yield stand
        finally:
            end_group(guardian)  # which the front may be in
            for fd in (standard_error, end_guardian, told):
                os.close(fd)
            stand.hang_up()


@contextmanager
def program() -> Iterator[tuple[int, int]]:
    """A process that writes the numbers of the signals that it gets to a pipe; its pid, and where to read them."""
    read_end, write_end = os.pipe()

    def body() -> None:
        for caught in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            signal.signal(caught, lambda arrived, _: os.write(write_end, bytes([arrived])))
        while True:
            signal.pause()

    with child(body) as pid:
        await_sleep(pid)
        yield pid, read_end
    os.close(read_end)
    os.close(write_end)


# -- messages


@pytest.mark.parametrize("status", [0, 7, 255])
def test_it_exits_as_the_program_did(status: int) -> None:
    with front() as stand:
        stand.send("exited", status)
        assert stand.end() == status
        assert stand.said() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMIN + 3])
def test_it_dies_by_the_signal_that_killed_the_program(number: int) -> None:
    with front() as stand:
        stand.send("killed", int(number))
        assert stand.end() == -number


@pytest.mark.parametrize(("verbosity", "said"), [(0, "mlockwipe: this\nmlockwipe: and that\n"), (-1, "")])
def test_it_says_what_it_is_told_to_unless_it_is_quiet(verbosity: int, said: str) -> None:
    with front(verbosity=verbosity) as stand:
        stand.send("say", "this")
        stand.send("say", "and that")
        stand.send("exited", 0)
        assert stand.end() == 0
        assert stand.said() == said


@pytest.mark.parametrize("verbosity", [0, -1])
def test_why_a_command_could_not_be_run_is_said_even_then(verbosity: int) -> None:
    with front(verbosity=verbosity) as stand:
        stand.send("failed", 127, "nonesuch: command not found")
        assert stand.end() == 127
        assert stand.said() == "mlockwipe: nonesuch: command not found\n"


def test_it_fails_when_nobody_is_left_to_hear_of() -> None:
    with front(verbosity=-1) as stand:
        stand.hang_up()
        assert stand.end() == 125
        assert stand.said() == "mlockwipe: supervisor and guardian were both killed\n"


def test_where_no_descendant_is_left_its_guardian_is_reaped_first() -> None:
    with front() as stand:
        stand.send("ended")
        stand.send("exited", 7)
        stand.let_guardian_end()
        assert stand.end() == 7
        with pytest.raises(ProcessLookupError):
            os.kill(stand.guardian, 0)


def test_where_descendants_go_on_so_does_its_guardian() -> None:
    with front() as stand:
        stand.send("exited", 7)
        assert stand.end() == 7
        assert int(procfs.status_field(stand.guardian, "PPid")) == os.getpid()  # an orphan


# -- once the program has started


def test_it_moves_to_its_guardian_and_lets_go_of_all_else() -> None:
    with program() as (pid, _), front() as stand:
        before = stand.descriptors()
        assert os.getpgid(stand.pid) == stand.pid
        stand.send("started", pid, 1)
        stand.await_handled()
        after = stand.descriptors()
        assert os.getpgid(stand.pid) == stand.guardian
        assert after.pop(0) == after.pop(1) == "/dev/null"
        assert after.pop(2) == before[2]
        assert len(before) > len(after) == 5  # the channel, its signals, its parent, the program, and /proc
        assert {"anon_inode:[signalfd]", "anon_inode:[pidfd]"} < set(after.values())
        assert os.readlink(f"/proc/{stand.pid}/cwd") == "/"


def send_as(sender: int, pid: int, number: int) -> None:
    """Send a signal that says it is from somebody else (rt_sigqueueinfo(2))."""
    info = struct.pack("=iiixxxxii104x", number, 0, SI_QUEUE, sender, os.geteuid())
    assert libc.syscall(SYS_RT_SIGQUEUEINFO, pid, number, ctypes.create_string_buffer(info, len(info))) == 0


@pytest.mark.parametrize("sender", ["stranger", "guardian", "supervisor"])
def test_a_signal_is_forwarded_unless_its_own_people_sent_it(sender: str) -> None:
    with program() as (pid, arrived), front() as stand:
        stand.send("started", pid, SUPERVISOR)
        stand.await_handled()
        from_whom = {"stranger": os.getpid(), "guardian": stand.guardian, "supervisor": SUPERVISOR}[sender]
        send_as(from_whom, stand.pid, signal.SIGUSR1)
        if sender == "stranger":
            assert os.read(arrived, 1)[0] == signal.SIGUSR1
        send_as(os.getpid(), stand.pid, signal.SIGUSR2)
        assert os.read(arrived, 1)[0] == signal.SIGUSR2  # and nothing before it
        stand.send("exited", 0)
        assert stand.end() == 0


def test_the_signals_of_a_supervisor_that_takes_over_are_not_forwarded_either() -> None:
    with program() as (pid, arrived), front() as stand:
        for supervisor in (SUPERVISOR, SUPERVISOR - 1):
            stand.send("started", pid, supervisor)
        stand.await_handled()
        for sender in (SUPERVISOR, SUPERVISOR - 1):
            send_as(sender, stand.pid, signal.SIGUSR1)
        send_as(os.getpid(), stand.pid, signal.SIGUSR2)
        assert os.read(arrived, 1)[0] == signal.SIGUSR2


def test_a_signal_for_a_program_that_is_gone_is_dropped() -> None:
    with front() as stand:
        with program() as (pid, _):
            stand.send("started", pid, SUPERVISOR)
            stand.await_handled()
        os.kill(stand.pid, signal.SIGUSR1)
        stand.send("exited", 7)
        assert stand.end() == 7


# -- an audit, which waits for all that the program has started


def test_an_audit_goes_on_until_its_supervisor_ends() -> None:
    with program() as (pid, _), front(audits=True) as stand:
        stand.send("started", pid, SUPERVISOR)
        stand.await_handled()
        assert os.getpgid(stand.pid) == stand.guardian
        stand.send("exited", 7)
        stand.await_handled()
        assert os.getpgid(stand.pid) == stand.pid  # where ^C arrives
        stand.send("say", "a finding")
        stand.hang_up()
        stand.let_guardian_end()
        assert stand.end() == 7
        assert "what it left running is audited" in stand.said()


@pytest.mark.parametrize(("word", "status"), [("exited", 7), ("killed", 128 + 7)])
def test_an_audit_that_has_nothing_left_to_see_ends_silently(word: str, status: int) -> None:
    with front(audits=True) as stand:
        stand.let_guardian_end()
        stand.send("ended")
        stand.send(word, 7)
        stand.hang_up()
        assert stand.end() == status
        assert stand.said() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_an_audit_once_the_program_has_ended(number: int) -> None:
    with front(audits=True) as stand:
        stand.send("exited", 7)
        stand.await_handled()
        os.kill(stand.pid, signal.SIGUSR1)
        while int(procfs.status_field(stand.pid, "ShdPnd"), 16):
            os.sched_yield()
        while (state := procfs.stat_fields(stand.pid)[0]) not in "SZ":
            os.sched_yield()
        assert state == "S"  # it waits on
        os.kill(stand.pid, number)
        assert stand.end() == 7


def test_what_is_said_to_a_front_that_does_not_listen_is_lost_and_not_waited_for() -> None:
    ours, theirs = Channel.pair()
    for _ in range(10_000):
        ours.offer("say", "something " * 100)
    assert theirs.receive() == ("say", "something " * 100, [])
    theirs.close()
    ours.offer("say", "to nobody")
    ours.close()

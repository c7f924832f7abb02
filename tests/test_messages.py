# SPDX-License-Identifier: MIT
"""What is said on stderr, whatever that is, and whatever stands in it."""

import fcntl
import os
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mlockwipe import messages
from mlockwipe.printable import printable
from tests.support.running import MLOCKWIPE, TIMEOUT, marked, run_bare, run_supervised

LOCK = "import os, sys\nfrom mlockwipe.linux import mm; mm.mlock(mm.mmap(0, 4096, 3, 0x22), 4096)\n"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain, ä and 日本", "plain, ä and 日本"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the same in one character of the second set of controls
        ("a\nmlockwipe: all is well\r", r"a\nmlockwipe: all is well\r"),
        ("\u202egnp.exe\u202c\u2066\u2069\u200b", r"\u202egnp.exe\u202c\u2066\u2069\u200b"),
        ("\u2028\u2029\x85\x7f\x00", r"\u2028\u2029\x85\x7f\x00"),
        (b"\xff\xfe".decode(errors="surrogateescape"), r"\udcff\udcfe"),
        ("\U000e0001", r"\U000e0001"),
        ("C:\\path", "C:\\path"),
    ],
)
def test_nothing_but_what_can_be_seen_is_printed(raw: str, shown: str) -> None:
    assert printable(raw) == shown
    assert printable(raw).isprintable()


def test_every_character_is_printable_then() -> None:
    everything = "".join(map(chr, range(0x110000)))
    assert printable(everything).isprintable()
    assert printable(everything).isascii() is False


# -- whatever stderr is


def told(stderr: int, *texts: str) -> float:
    """Tell each text to that descriptor, in a process of its own: how long it took."""
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(BaseException):
            os.dup2(stderr, 2)
            for text in texts:
                messages.tell(text)
            status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    return time.monotonic() - begun


def full_pipe() -> int:
    _, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(1 << 16))
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"x")
    os.set_blocking(write, True)
    return write


def nonblocking_full_pipe() -> int:
    write = full_pipe()
    os.set_blocking(write, False)
    return write


def full_socket() -> int:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ours.send(bytes(1 << 16))
    ours.setblocking(True)
    theirs.detach()
    return ours.detach()


def broken_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def unwritable() -> int:
    return os.open("/", os.O_PATH)


def stopped_terminal() -> int:
    _, terminal = os.openpty()
    termios.tcflow(terminal, termios.TCOOFF)  # as by ^S
    return terminal


def unread_terminal() -> int:
    return os.openpty()[1]


STREAMS = [
    full_pipe,
    nonblocking_full_pipe,
    full_socket,
    broken_pipe,
    full_disk,
    unwritable,
    stopped_terminal,
    unread_terminal,
]


@pytest.mark.parametrize("stderr", STREAMS)
def test_it_never_fails_and_takes_a_moment_at_most(stderr: Callable[[], int]) -> None:
    fd = stderr()
    assert told(fd, *["text" * 5000] * 50) < 5  # seconds; each would wait for ever
    os.close(fd)


def test_a_slow_reader_loses_nothing_in_that_moment() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    pid = os.fork()
    if pid == 0:
        os.close(write)
        length = 0
        while part := os.read(read, 1000):
            length += len(part)
            time.sleep(0.001)
        os._exit(0 if length == 3 * (20_000 + len("mlockwipe: \n")) else 1)
    os.close(read)
    told(write, *["t" * 20_000] * 3)
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0


# -- commands


def shell(words: str, *redirections: str) -> int:
    """The status of mlockwipe with such words, in a shell."""
    with marked() as processes:
        return subprocess.run(
            ["sh", "-c", f"exec {MLOCKWIPE} {words} {' '.join(redirections)}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=processes.environment,
            timeout=TIMEOUT,
        ).returncode


@pytest.mark.parametrize(
    "redirection", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full", "2>&- >&-", "2</dev/null"]
)
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("run -v -- sh -c 'exit 7'", 7),
        (f"run -v -- {sys.executable} -c '{LOCK}sys.exit(7)'", 7),
        ("run -- /no/such/command", 127),
        ("run --bogus", 2),
        ("attach 1", 125),
        pytest.param("audit -- sh -c 'exit 7'", 7, marks=pytest.mark.needs_library("libdw.so.1", "libdw1")),
    ],
)
def test_a_closed_or_full_stream_changes_no_status(words: str, status: int, redirection: str) -> None:
    assert shell(words, redirection) == status


@pytest.mark.parametrize("lock", ["", LOCK], ids=["never-locks", "locks"])
def test_a_program_finds_closed_what_was_closed(lock: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = f"{lock}import os\nopen({str(out)!r}, 'w').write(' '.join(os.listdir('/proc/self/fd')))"
    found = []
    for run in (f"exec {MLOCKWIPE} run -v --", "exec"):
        subprocess.run(["sh", "-c", f'{run} "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", source], check=True)
        found.append(out.read_text())
    assert found[0] == found[1]


def test_a_stderr_that_nobody_reads_holds_up_neither_the_program_nor_its_status() -> None:
    """Each of 40 programs can't be protected, which is said."""
    source = "import subprocess, sys\nfor n in range(40): subprocess.run(['true'])\nsys.exit(7)"
    stderr = full_pipe()
    with marked() as processes:
        done = subprocess.run(
            [MLOCKWIPE, "run", "-v", "--", sys.executable, "-c", LOCK + source],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env=processes.environment,
            timeout=TIMEOUT,
        )
    os.close(stderr)
    assert done.returncode == 7


def test_totals_before_the_end_of_the_last_descendant_say_so() -> None:
    source = "import time\nif os.fork() == 0:\n    time.sleep(0.5)\n    os._exit(0)\nos._exit(0)"
    assert run_bare([MLOCKWIPE, "run", "-v", "--", sys.executable, "-c", LOCK + source]).err.endswith(
        ", until now: descendants go on\n"
    )
    assert "until now" not in run_bare([MLOCKWIPE, "run", "-v", "--", sys.executable, "-c", LOCK]).err


@pytest.mark.needs_program("strace", "strace")
def test_what_is_the_same_but_for_a_pid_is_said_once() -> None:
    source = "import subprocess, sys\nfor n in range(5): subprocess.run(['strace', '-o', '/dev/null', *sys.argv[1:]])"
    outcome = run_supervised([sys.executable, "-c", source, sys.executable, "-c", LOCK])
    assert outcome.err.count("\n") == outcome.err.count("it is traced by process") == 1
    (told,) = outcome.report["unprotected"]
    assert (told["reason"], told["times"]) == ("it is traced by process ...", 5)


def test_a_path_can_not_speak_to_the_terminal(tmp_path: Path) -> None:
    name = "a\x1b]0;owned\x07\nmlockwipe: all is well \u202e"
    for command, status in (([str(tmp_path / name)], 127), (["x" + name], 127)):
        outcome = run_bare([MLOCKWIPE, "run", "--", *command])
        assert outcome.status == status
        assert outcome.err.rstrip("\n").isprintable()
    for words in ([f"--{name}"], ["run", f"--{name}"], ["run", f"--report=/no/{name}", "true"], ["attach", name]):
        said = run_bare([MLOCKWIPE, *words]).err.splitlines()
        assert all(map(str.isprintable, said))
        assert not any(line.startswith("mlockwipe: all is well") for line in said)

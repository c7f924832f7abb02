# SPDX-License-Identifier: MIT
"""`mlockwipe run` in an interactive shell: Ctrl-C, Ctrl-Z, fg, bg, jobs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import MLOCKWIPE, marked
from tests.support.terminal import CTRL_BACKSLASH, CTRL_C, CTRL_Z, Terminal, terminal

LOCK = "from mlockwipe.linux import mm; mm.mlock(mm.mmap(0, 4096, 3, 0x22), 4096)\n"
# It waits in select() with a wakeup descriptor: a signal between Python's last look for one and its read() of a line
# would be handled only when the line is there. In the background it reads at once, for the terminal to stop it.
# And it does not print, for a handler that does while print() is at work is a RuntimeError.
PROGRAM = """
import os, select, signal, sys
def say(*words): os.write(1, " ".join(map(str, words)).encode() + b"\\n")
counts = dict.fromkeys(("SIGINT", "SIGTSTP", "SIGCONT", "SIGQUIT"), 0)
def count(number, frame):
    counts[signal.Signals(number).name] += 1
    say(signal.Signals(number).name, counts[signal.Signals(number).name])
for name in sys.argv[1:]: signal.signal(getattr(signal, name), count)
woken, wakes = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(wakes)
say("ready")
while True:
    if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
        found, _, _ = select.select([0, woken], [], [])
        if woken in found: os.read(woken, 512)
        if 0 not in found: continue
    line = sys.stdin.readline()
    if not line: break
    say("read", line[:-1])
    if line == "end\\n": sys.exit(5)
"""
# `mlockwipe` of which one process is late in leaving the process group of the program.
LATE = """
import os, sys, time
from mlockwipe.cli import main
front, leave = os.getpid(), os.setpgid
def late(pid, group):
    me = "front" if os.getpid() == front else open("/proc/self/comm").read().strip()
    if me == "{late}": time.sleep(1)
    leave(pid, group)
os.setpgid = late
sys.exit(main())
"""


@pytest.fixture(params=["bare", "never-locks", "locks"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    program = tmp_path / "program.py"
    program.write_text((LOCK if request.param == "locks" else "") + PROGRAM)
    run = "" if request.param == "bare" else f"{MLOCKWIPE} run -- "
    return f"{run}{sys.executable} {program}"


@pytest.fixture
def user() -> Iterator[Terminal]:
    with terminal() as one:
        yield one


def test_ctrl_c_ends_the_program_and_the_shell_sees_sigint(user: Terminal, command: str) -> None:
    user.type(command + "\n")
    user.until("ready\r\n")
    user.type(CTRL_C)
    user.until("=prompt=")
    assert user.run("echo status $?").strip() == "status 130"


def test_ctrl_c_reaches_a_handler_exactly_once(user: Terminal, command: str) -> None:
    user.type(f"{command} SIGINT SIGQUIT\n")
    user.until("ready\r\n")
    user.type(CTRL_C)
    user.until("SIGINT 1\r\n")
    user.type(CTRL_BACKSLASH)
    user.until("SIGQUIT 1\r\n")
    user.type("end\n")
    assert "SIGINT" not in user.until("=prompt=")
    assert user.run("echo status $?").strip() == "status 5"


def test_ctrl_z_stops_it_and_fg_continues_it(user: Terminal, command: str) -> None:
    user.type(f"{command}\n")
    user.until("ready\r\n")
    for word in ("first", "second"):
        user.type(CTRL_Z)
        assert "Stopped" in user.until("=prompt=")
        assert "Stopped" in user.run("jobs")
        user.type("fg\n")
        user.type(f"{word}\n")
        user.until(f"read {word}\r\n")
    user.type("end\n")
    user.until("=prompt=")
    assert user.run("echo status $?").strip() == "status 5"


def test_bg_continues_it_and_it_stops_when_it_reads_the_terminal(user: Terminal, command: str) -> None:
    user.type(f"{command} SIGCONT\n")
    user.until("ready\r\n")
    user.type(CTRL_Z)
    user.until("=prompt=")
    user.run("bg")
    while "Stopped" not in (jobs := user.run("jobs")):  # by SIGTTIN; the shell tells only when it is asked
        assert "Running" in jobs
    user.type("fg\n")
    user.type("end\n")
    user.until("=prompt=")
    assert user.run("echo status $?").strip() == "status 5"


@pytest.mark.parametrize("source", ["", LOCK], ids=["never-locks", "locks"])
@pytest.mark.parametrize("late", ["nobody", "front", "mlockwipe-super"])
def test_it_can_be_killed_while_it_is_stopped(source: str, late: str) -> None:
    """Without a terminal: the group is stopped and killed, and the one who waits for the front sees both."""
    program = f"{source}print('ready', flush=True)\nimport signal\nwhile True: signal.pause()"
    mlockwipe = [MLOCKWIPE] if late == "nobody" else [sys.executable, "-c", LATE.format(late=late)]
    command = [*mlockwipe, "run", "--", sys.executable, "-c", program]
    with (
        marked() as processes,
        subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0, env=processes.environment) as front,
    ):
        try:
            assert front.stdout is not None
            front.stdout.readline()
            os.killpg(front.pid, signal.SIGSTOP)
            stop = os.waitid(os.P_PID, front.pid, os.WSTOPPED)
            assert stop is not None
            assert stop.si_status == signal.SIGSTOP
            os.killpg(front.pid, signal.SIGKILL)
            assert front.wait() == -signal.SIGKILL
        finally:
            front.kill()


def test_it_is_in_a_pipeline_of_the_shell(user: Terminal, command: str) -> None:
    user.type(f"{command} </dev/null | tr a-z A-Z; echo ${{PIPESTATUS[0]}}\n")
    assert user.until("=prompt=") == "READY\n0\n"

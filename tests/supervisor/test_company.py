# SPDX-License-Identifier: MIT
"""`mlockwipe run` beside others that trace, filter and isolate: a sentence is said, and the program still runs."""

import signal
import sys

import pytest

from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import MLOCKWIPE, run_bare, run_supervised
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody, python_for_nobody

needs_strace = pytest.mark.needs_program("strace", "strace")

LOCK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
print("lock", os.strerror(ctypes.get_errno()) if libc.mlock(page, 4096) else "done")
"""
LOCKS = [sys.executable, "-c", LOCK]


@needs_strace
def test_a_program_under_strace_within_run_goes_on_unprotected() -> None:
    outcome = run_supervised(["strace", "-f", "-o", "/dev/null", *LOCKS])
    assert (outcome.status, outcome.out) == (0, "lock done\n")
    assert outcome.err.count("\n") == 1
    assert "can't be protected, it goes on: it is traced by process" in outcome.err
    assert len(outcome.report["unprotected"]) == 1


@needs_strace
def test_a_program_under_strace_within_a_strict_run_may_not_lock() -> None:
    outcome = run_supervised(["strace", "-f", "-o", "/dev/null", *LOCKS], arguments=["--strict"])
    assert (outcome.status, outcome.out) == (0, "lock Operation not permitted\n")
    assert outcome.err.count("\n") == 1
    assert "can't be protected, its lock is refused: it is traced by process" in outcome.err


@needs_strace
def test_a_run_under_strace_says_why_not_before_anything_is_started() -> None:
    outcome = run_bare(["strace", "-f", "-o", "/dev/null", MLOCKWIPE, "run", "--", *LOCKS])
    assert (outcome.status, outcome.out) == (125, "")
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("mlockwipe: ptrace is refused here: ")


@needs_gcc
def test_a_program_with_its_own_notification_listener_is_told_that_there_is_one() -> None:
    listener = compiled("listener")
    bare = run_bare([listener])
    assert (bare.status, bare.out) == (0, "listener: installed\n")
    outcome = run_supervised([listener])
    assert (outcome.status, outcome.out) == (0, "listener: Device or resource busy\n")
    assert "wants a seccomp notification listener of its own" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.needs_pid_namespace
def test_it_is_process_1_of_a_pid_namespace_and_reaps() -> None:
    orphans = (
        "import os, sys\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print(os.getppid() != 0)\n"
        "sys.exit(7)\n"
    )
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    for source in (orphans, LOCK + orphans):
        outcome = run_bare([*unshare, MLOCKWIPE, "run", "-q", "--", sys.executable, "-c", source])
        assert outcome.status == 7, outcome.err
        assert outcome.out.endswith("True\n")
        assert outcome.err == ""


@pytest.mark.needs_pid_namespace
def test_as_process_1_it_ends_with_the_shells_status_for_a_signal() -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    outcome = run_bare(
        [*unshare, MLOCKWIPE, "run", "--", *LOCKS[:-1], LOCK + "sys.stdout.flush(); os.kill(os.getpid(), 15)"]
    )
    assert (outcome.status, outcome.out) == (128 + signal.SIGTERM, "lock done\n")


# The limit is set by the program itself: it counts all processes of the user, and must allow no keeper.
WITHOUT_KEEPERS = "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\n" + LOCK


@needs_nobody
@pytest.mark.parametrize(
    ("arguments", "said", "done"),
    [([], "it goes on", "lock done\n"), (["--strict"], "its lock is refused", "lock Operation not permitted\n")],
    ids=["lenient", "strict"],
)
def test_a_program_that_has_no_room_for_a_keeper(arguments: list[str], said: str, done: str) -> None:
    with mlockwipe_for_nobody() as mlockwipe:
        outcome = run_supervised(
            [python_for_nobody(), "-c", WITHOUT_KEEPERS],
            mlockwipe=[*AS_NOBODY, *mlockwipe],
            arguments=arguments,
            cwd="/",
        )
    assert (outcome.status, outcome.out) == (0, done), outcome.err
    assert outcome.err.count("\n") == 1
    assert f"can't be protected, {said}: " in outcome.err
    assert len(outcome.report["unprotected"]) == 1


# No file can be opened on the whole system, where the process that locks is looked at.
WITHOUT_FILES = """
import errno, os, sys
from mlockwipe.cli import main
from mlockwipe.tracing.notified import NotifiedCalls
def attach(self, tid):
    raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
NotifiedCalls._trace = attach
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "done"),
    [([], "lock done\n"), (["--strict"], "lock Operation not permitted\n")],
    ids=["lenient", "strict"],
)
def test_a_lock_that_nobody_could_look_at_is_granted_or_refused_all_the_same(arguments: list[str], done: str) -> None:
    outcome = run_supervised(LOCKS, mlockwipe=[sys.executable, "-c", WITHOUT_FILES], arguments=arguments)
    assert (outcome.status, outcome.out) == (0, done), outcome.err
    assert outcome.err.count("\n") == 1
    assert "Too many open files in system" in outcome.err


# A child registers 16 MiB that it has of its parent, and hands on what tells of them: its end must wait for nobody.
TOLD_OF_REMOVALS = """
import ctypes, fcntl, os, socket, struct
from mlockwipe.linux import mm
UFFDIO_API, UFFDIO_REGISTER, EVENT_REMOVE, MISSING, size = 0xC018AA3F, 0xC020AA00, 1 << 3, 1, 16 << 20
at = mm.mmap(0, size, 3, 0x22)
mm.mlock(at, size)
ctypes.memset(at, 1, size)
ours, theirs = socket.socketpair()
pid = os.fork()
if pid == 0:
    told = ctypes.CDLL(None).syscall(323, 1)  # userfaultfd(UFFD_USER_MODE_ONLY)
    fcntl.ioctl(told, UFFDIO_API, struct.pack("=3Q", 0xAA, EVENT_REMOVE, 0))
    fcntl.ioctl(told, UFFDIO_REGISTER, struct.pack("=4Q", at, size, MISSING, 0))
    socket.send_fds(theirs, [b"x"], [told])
    os._exit(7)
_, (told,), *_ = socket.recv_fds(ours, 1, 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.close(told)
"""


def test_a_childs_end_does_not_wait_for_who_reads_its_userfaultfd() -> None:
    outcome = run_supervised([sys.executable, "-c", TOLD_OF_REMOVALS])
    assert (outcome.status, outcome.out, outcome.err) == (0, "7\n", "")
    assert outcome.pages_wiped > (16 << 20) // 4096

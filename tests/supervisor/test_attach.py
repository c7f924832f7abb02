# SPDX-License-Identifier: MIT
"""`mlockwipe attach`: programs that run already, covered from then on, and left as they were."""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from mlockwipe.linux import procfs
from tests.support.attaching import MLOCKWIPE, PART, UNSHARE, Obedient, attached, attaching, obedient, tasks
from tests.support.c_programs import needs_gcc
from tests.support.running import TIMEOUT, Marked, run_bare
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody

pytestmark = needs_gcc

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
threads = pytest.mark.parametrize("threads", [1, 5])


def gone(program: Obedient, *, shown: int = PART, dirty: int = 0) -> None:
    """The program has shown so many pages, and so many still hold the secret."""
    pages = program.look()
    assert (pages.total, pages.dirty, pages.other) == (shown, dirty, 0)


# -- what is covered


@threads
def test_sigkill(threads: int) -> None:
    with obedient(threads) as (program, _), attached(program) as attachment:
        program.kill()
        assert program.end() == -signal.SIGKILL
        gone(program)  # by the time its parent knows
        assert attachment.end() == 0
        assert attachment.report["pages_wiped"] == {"SIGKILL": 2 * PART}
        assert attachment.report["processes_attached"] == 1
        assert attachment.report["final"] is True


@threads
def test_sigkill_without_attach_leaks(threads: int) -> None:
    with obedient(threads) as (program, _):
        program.kill()
        program.end()
        gone(program, dirty=PART)


@threads
@pytest.mark.parametrize("order", ["x", "t"], ids=["main", "another-thread"])
def test_exit(threads: int, order: str) -> None:
    with obedient(threads) as (program, _), attached(program) as attachment:
        program.order(order)
        assert program.end() == 0
        gone(program)
        assert attachment.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGRTMIN + 3])
def test_a_fatal_signal_arrives_as_it_was_sent(number: int) -> None:
    with obedient() as (program, _), attached(program) as attachment:
        program.kill(number)
        assert program.end() == -number
        gone(program)
        assert attachment.end() == 0


@threads
@pytest.mark.parametrize("order", ["e", "E"], ids=["main", "another-thread"])
def test_exec_and_the_new_program_goes_on(threads: int, order: str) -> None:
    with obedient(threads) as (program, _), attached(program) as attachment:
        program.order(order)
        assert program.tell("\n") == [""]  # cat answers: the exec is done
        gone(program)
        assert attachment.process.poll() is None
        assert program.process.stdin is not None
        program.process.stdin.close()
        assert program.end() == 0
        assert attachment.end() == 0


@pytest.mark.parametrize("order", ["e", "E"], ids=["main", "another-thread"])
def test_exec_without_attach_leaks(order: str) -> None:
    with obedient() as (program, _):
        program.order(order)
        assert program.tell("\n") == [""]
        gone(program, dirty=PART)


def test_what_a_new_program_locks_after_exec_is_covered() -> None:
    with obedient() as (program, _), attached(program):
        program.order("a")
        assert program.answer() == "ready"
        program.kill()
        program.end()
        gone(program, shown=2 * PART)


def test_memory_that_is_locked_later_is_covered() -> None:
    with obedient(3) as (program, _), attached(program) as attachment:
        program.tell("l")
        program.kill()
        program.end()
        gone(program, shown=2 * PART)
        assert attachment.end() == 0


def test_protected_memory_is_covered() -> None:
    with obedient() as (program, _), attached(program):
        program.tell("n")
        program.kill()
        program.end()
        gone(program)


def test_memory_that_was_unlocked_is_left_alone() -> None:
    with obedient() as (program, _), attached(program) as attachment:
        program.tell("u")
        program.kill()
        program.end()
        gone(program, dirty=PART)
        assert attachment.end() == 0
        assert attachment.report["pages_wiped"] == {"SIGKILL": PART}


def test_all_memory_covers_what_was_unlocked() -> None:
    with obedient() as (program, _), attached(program, "--all-memory"):
        program.tell("u")
        program.kill()
        program.end()
        gone(program)


@pytest.mark.parametrize("order", ["f", "k"], ids=["exits", "is-killed"])
def test_what_a_child_inherits_is_covered_and_its_parent_keeps_its_own(order: str) -> None:
    with obedient() as (program, _), attached(program) as attachment:
        assert program.tell(order) == ["had a child"]
        assert program.process.poll() is None
        program.kill()
        program.end()
        gone(program, shown=2 * PART)
        assert attachment.end() == 0
        assert attachment.report["processes_attached"] == 2


def test_what_a_child_inherits_leaks_without_attach() -> None:
    with obedient() as (program, _):
        program.tell("f")
        program.kill()
        program.end()
        gone(program, shown=2 * PART, dirty=2 * PART)


@threads
def test_a_program_that_it_runs_ends_as_ever_and_its_own_memory_stays(threads: int) -> None:
    with obedient(threads) as (program, _), attached(program) as attachment:
        assert program.tell("sss?") == ["ran it", "ran it", "ran it", "well"]
        program.order("x")
        assert program.end() == 0
        gone(program)
        assert attachment.end() == 0


@threads
def test_a_signal_that_a_program_ignores_interrupts_nothing(threads: int) -> None:
    """Not even when it is traced, though the kernel wakes it for such a signal then."""
    with obedient(threads) as (program, _), attached(program):
        program.tell("b")
        time.sleep(0.1)
        assert program.tell("?") == ["well"]


def test_an_undumpable_program_is_covered_as_before() -> None:
    with obedient() as (program, _), attached(program):
        assert program.tell("dfs") == ["undumpable", "had a child", "ran it"]
        program.kill()
        program.end()
        gone(program, shown=2 * PART)


@as_root
def test_a_sandboxed_program_is_covered_and_stays_in_its_sandbox() -> None:
    with obedient(2) as (program, _):
        program.tell("c")
        before = tasks(program.pid)
        with attached(program) as attachment:
            assert program.tell("fs") == ["had a child", "ran it"]
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
        assert tasks(program.pid) == before
        assert before[program.pid]["Seccomp"] == "2"
        with attached(program):
            program.kill()
            program.end()
            gone(program, shown=2 * PART)


@pytest.mark.needs_pid_namespace
def test_process_1_of_a_pid_namespace_which_kills_its_keeper_before_it_is_dead() -> None:
    with obedient(2, UNSHARE) as (program, _):
        program.aim_at_child()
        with attached(program) as attachment:
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
        program.tell("?")  # it is the reaper of the keepers, and may have been woken by their SIGCHLD
        with attached(program) as attachment:
            program.kill()
            program.end()
            gone(program)
            assert attachment.end() == 0


def test_several_processes() -> None:
    with (
        obedient() as (first, _),
        obedient(3) as (second, _),
        attaching(str(first.pid), str(second.pid)) as attachment,
    ):
        attachment.await_covered(first.pid, second.pid)
        first.kill()
        first.end()
        gone(first)
        assert attachment.process.poll() is None
        second.order("x")
        second.end()
        gone(second)
        assert attachment.end() == 0


# Of a newborn task nothing can be read: no file can be opened on the whole system.
WITHOUT_FILES = """
import errno, os, sys
from mlockwipe.cli import main
from mlockwipe.linux import procfs
status_field = procfs.status_field
def refused(pid, field):
    if field == "Tgid":
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
    return status_field(pid, field)
procfs.status_field = refused
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("order", "answer"), [("f", "had a child"), ("s", "ran it")], ids=["fork", "vfork"])
def test_a_child_that_nothing_can_be_read_of_goes_on_and_all_others_stay_covered(order: str, answer: str) -> None:
    with obedient() as (program, _), obedient() as (other, _):
        mlockwipe = (sys.executable, "-c", WITHOUT_FILES)
        with attaching(str(program.pid), str(other.pid), prefix=mlockwipe) as attachment:
            attachment.await_covered(program.pid, other.pid)
            assert program.tell(order) == [answer]
            assert program.tell("?") == ["well"]
            program.kill()
            program.end()
            pages = program.look()
            left = PART if order == "f" else 0  # what that child had inherited, as was said
            assert (pages.total, pages.dirty) == (PART + left, left)
            other.kill()
            other.end()
            gone(other)
            assert attachment.end() == 0
            assert any("can't be covered: the kernel tells nothing of it" in line for line in attachment.said)
            assert any("Too many open files in system" in line for line in attachment.said)


def test_a_stopped_program_stays_stopped_and_is_covered() -> None:
    with obedient(3) as (program, _):
        program.kill(signal.SIGSTOP)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED)
        with attached(program) as attachment:
            assert all(procfs.Status(tid)["State"][0] in "tT" for tid in procfs.tasks(program.pid))
            program.order("?")
            assert program.process.stdout is not None
            assert select.select([program.process.stdout], [], [], 0.2)[0] == []
            program.kill(signal.SIGCONT)
            program.answer()
            program.kill(signal.SIGSTOP)
            os.waitid(os.P_PID, program.pid, os.WSTOPPED)
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
            assert {status["TracerPid"] for status in tasks(program.pid).values()} == {"0"}
            deadline = time.monotonic() + 5  # it goes from one kind of stop into the other
            while not procfs.Status(program.pid)["State"].startswith("T"):
                assert time.monotonic() < deadline
            program.kill(signal.SIGCONT)
            program.tell("?")  # a stop makes epoll_wait() return EINTR, with or without us


# -- how it is left


@threads
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_detach_leaves_the_program_as_it_was(threads: int, number: int) -> None:
    with obedient(threads) as (program, processes):
        before = tasks(program.pid)
        with attached(program) as attachment:
            assert processes.named("mlockwipe-keep") != []
            attachment.send(number)
            assert attachment.end() == 0
            assert "detached: the programs go on without cover" in attachment.said
        assert tasks(program.pid) == before
        assert processes.named("mlockwipe-keep") == []
        assert program.tell("?fs") == ["well", "had a child", "ran it"]
        program.order("x")
        assert program.end() == 0
        gone(program, shown=2 * PART, dirty=2 * PART)  # no cover any more


def test_attach_and_detach_again_and_again() -> None:
    with obedient(3) as (program, _):
        before = tasks(program.pid)
        for _ in range(10):
            with attached(program) as attachment:
                attachment.send(signal.SIGINT)
                assert attachment.end() == 0
        assert tasks(program.pid) == before
        with attached(program):
            assert program.tell("?") == ["well"]
            program.kill()
            program.end()
            gone(program)


def test_the_program_goes_on_when_mlockwipe_is_killed() -> None:
    with obedient(3) as (program, processes):
        before = tasks(program.pid)
        with attached(program) as attachment:
            attachment.send(signal.SIGKILL)
            attachment.end()
        await_no(processes, "mlockwipe-keep")
        assert tasks(program.pid) == before
        assert program.tell("?fs") == ["well", "had a child", "ran it"]


def await_no(processes: Marked, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while processes.named(name):
        assert time.monotonic() < deadline


@threads
def test_mlockwipe_killed_at_any_moment_of_attaching_leaves_a_whole_program_or_none(threads: int) -> None:
    """Half-way through making the keeper, which takes less than a millisecond, the program dies with it."""
    for trial in range(20):
        with obedient(threads) as (program, processes):
            before = tasks(program.pid)
            with attaching(str(program.pid)) as attachment:
                while procfs.Status(program.pid)["TracerPid"] == "0":
                    pass
                time.sleep(trial * 0.0001)
                attachment.process.kill()
            await_no(processes, "mlockwipe-keep")
            with suppress(BrokenPipeError):
                program.order("?")
            if program.answer():
                assert tasks(program.pid) == before
            else:
                assert program.end() == -signal.SIGKILL


def test_a_signal_arrives_though_mlockwipe_dies_while_it_handles_it() -> None:
    """Killed at its second look at the registers of a stopped task, which is at the stop for the signal."""
    dies = (
        "import os, sys\n"
        "from mlockwipe.cli import main\n"
        "from mlockwipe.supervisor import attached\n"
        "true, calls = attached.restart_interrupted_call, []\n"
        "def look(tid):\n"
        "    true(tid)\n"
        "    calls.append(tid)\n"
        "    if len(calls) == 2: os.kill(os.getpid(), 9)\n"
        "attached.restart_interrupted_call = look\n"
        "sys.exit(main())\n"
    )
    counts = "trap 'echo caught; exit 7' USR1; echo ready; while read line; do :; done"
    with subprocess.Popen(["bash", "-c", counts], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
            with attaching(str(program.pid), prefix=(sys.executable, "-c", dies)) as attachment:
                attachment.await_covered(program.pid)
                program.send_signal(signal.SIGUSR1)
                assert attachment.end() == -signal.SIGKILL
            assert program.stdout.readline() == b"caught\n"
            assert program.wait(TIMEOUT) == 7
        finally:
            program.kill()


# -- what can't be


def refusal(*arguments: str) -> str:
    outcome = run_bare([*MLOCKWIPE, "attach", *arguments])
    assert outcome.status == 125
    assert outcome.err.count("\n") == 1
    return outcome.err.removeprefix("mlockwipe: ").rstrip("\n")


def test_a_process_that_does_not_exist() -> None:
    assert refusal("4194304") == "process 4194304 does not exist"


def test_quiet_still_says_why_nothing_could_be_attached_to() -> None:
    assert refusal("-q", "4194304") == "process 4194304 does not exist"


def test_a_kernel_thread() -> None:
    if Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("the kernel's threads can't be seen from here")
    assert refusal("2") == "process 2 is a kernel thread, which has no memory of its own"


def test_its_own_ancestors() -> None:
    assert refusal(str(os.getpid())) == f"process {os.getpid()} is mlockwipe itself, or has started it"


def test_a_zombie() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert refusal(str(pid)) == f"process {pid} has ended, and only waits for its parent"
    os.waitpid(pid, 0)


def test_a_thread() -> None:
    with obedient(2) as (program, _):
        other = next(tid for tid in procfs.tasks(program.pid) if tid != program.pid)
        assert refusal(str(other)) == f"process {other} is a thread of process {program.pid}: name that"


def test_a_process_that_is_attached_to_already() -> None:
    with obedient() as (program, _), attached(program) as attachment:
        text = refusal(str(program.pid))
        assert text == f"process {program.pid} is under another mlockwipe already, process {attachment.process.pid}"


def test_a_process_under_run_that_has_not_locked_anything() -> None:
    with subprocess.Popen(
        [*MLOCKWIPE, "run", "--", "sh", "-c", "echo $$; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as front:
        assert front.stdin is not None
        assert front.stdout is not None
        pid = int(front.stdout.readline())
        assert f"process {pid} is under another mlockwipe already, process " in refusal(str(pid))
        front.stdin.close()


@pytest.mark.parametrize("name", ["mlockwipe-keep", "mlockwipe-super"])
def test_a_program_that_takes_the_name_of_one_of_ours_is_attached_to(name: str) -> None:
    source = f"""
from mlockwipe.linux import mm, prctl
import os
prctl.set_name({name!r}.encode())
mm.mlock(mm.mmap(0, 4096, 3, 0x22), 4096)
if os.fork():
    print(os.wait()[1], flush=True)
    os._exit(0)
print(os.getpid(), flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        child = int(program.stdout.readline())  # whose parent has that name, too
        with attaching(str(child)) as attachment:
            attachment.await_covered(child)
            program.stdin.write("go on\n")
            program.stdin.flush()
            assert program.stdout.readline() == "0\n"


@pytest.mark.needs_program("strace", "strace")
def test_a_process_that_is_debugged() -> None:
    with obedient() as (program, _):
        with subprocess.Popen(["strace", "-o", os.devnull, "-p", str(program.pid)], stderr=subprocess.PIPE) as strace:
            while procfs.Status(program.pid)["TracerPid"] == "0":
                pass
            text = refusal(str(program.pid))
            strace.terminate()
        assert text == (
            f"process {program.pid} is traced by process {strace.pid} (strace), and a process has one tracer only"
        )


def test_one_that_can_is_attached_to_beside_one_that_cannot() -> None:
    with obedient() as (program, _), attaching("4194304", str(program.pid)) as attachment:
        attachment.await_covered(program.pid)
        assert attachment.said[0] == "process 4194304 does not exist"
        program.kill()
        program.end()
        gone(program)
        assert attachment.end() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--all", "1"],
        ["--policy", "p", "1"],
        ["--min-locked", "1K", "1"],
        ["0"],
        ["x"],
        ["--all", "--min-locked", "0"],
        ["--all", "--min-locked", "1Q"],
    ],
)
def test_usage(arguments: list[str]) -> None:
    outcome = run_bare([*MLOCKWIPE, "attach", *arguments])
    assert outcome.status == 2
    assert "Traceback" not in outcome.err


# -- who may


@as_root
@needs_nobody
def test_an_ordinary_user_may_attach_to_his_own() -> None:
    with mlockwipe_for_nobody() as mlockwipe, obedient(2, AS_NOBODY) as (program, _):
        before = tasks(program.pid)
        with attached(program, prefix=(*AS_NOBODY, *mlockwipe)) as attachment:
            # made undumpable it stays covered, and what it starts neither harms it nor is harmed
            assert program.tell("?dsf") == ["well", "undumpable", "ran it", "had a child"]
            attachment.send(signal.SIGINT)
            assert attachment.end() == 0
        assert tasks(program.pid) == before


@as_root
@needs_nobody
def test_an_ordinary_users_undumpable_program_is_covered() -> None:
    with (
        mlockwipe_for_nobody() as mlockwipe,
        obedient(2, AS_NOBODY) as (program, _),
        attached(program, prefix=(*AS_NOBODY, *mlockwipe)),
    ):
        program.tell("df")
        program.kill()
        program.end()
        gone(program, shown=2 * PART)


@as_root
@needs_nobody
def test_an_ordinary_user_is_told_why_not() -> None:
    with mlockwipe_for_nobody() as mlockwipe, obedient() as (roots, _), obedient(1, AS_NOBODY) as (undumpable, _):
        undumpable.tell("d")
        outcome = run_bare([*AS_NOBODY, *mlockwipe, "attach", str(roots.pid), str(undumpable.pid)], cwd="/")
        assert outcome.status == 125
        assert outcome.err.splitlines() == [
            f"mlockwipe: process {roots.pid} belongs to root: run mlockwipe attach as root",
            f"mlockwipe: process {undumpable.pid} is closed to tracing, by itself (PR_SET_DUMPABLE) or for its "
            "privileges: run mlockwipe attach as root",
        ]
        assert undumpable.tell("?") == ["well"]


@as_root
@needs_nobody
def test_an_ordinary_users_sandboxed_program_is_not_touched() -> None:
    with mlockwipe_for_nobody() as mlockwipe, obedient(1, AS_NOBODY) as (program, _):
        program.tell("c")
        outcome = run_bare([*AS_NOBODY, *mlockwipe, "attach", str(program.pid)], cwd="/")
        assert outcome.status == 125
        assert outcome.err.endswith(
            "can't be covered: it has seccomp filters of its own, which only root can suspend for a keeper's calls\n"
        )
        assert program.tell("?s") == ["well", "ran it"]


# -- races


@pytest.mark.parametrize("threads", [1, 4])
def test_sigkill_at_any_moment_leaves_no_page(threads: int) -> None:
    """By the time anybody was told that it is covered."""
    for trial in range(10):
        with ExitStack() as stack:
            pairs = [stack.enter_context(obedient(threads)) for _ in range(10)]
            programs = [program for program, _ in pairs]
            attachment = stack.enter_context(attaching(*(str(program.pid) for program in programs)))
            attachment.await_covered(*(program.pid for program in programs))
            for place, program in enumerate(programs):
                program.order("xetfsk"[(trial + place) % 6])
                time.sleep(place * 0.0003)
                program.kill()
            for program, _ in pairs:
                program.end()
            # A child may live on. It is seen to be gone before it is wiped, but for its parent, which is dead here.
            assert attachment.end() == 0
            for program, _ in pairs:
                pages = program.look()
                assert pages.total in (PART, 2 * PART)
                assert pages.dirty == 0

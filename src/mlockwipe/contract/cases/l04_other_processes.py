# SPDX-License-Identifier: MIT
"""L4: what another process sees of the same memory does not change when one lets go of it."""

import os
import signal
import sys
import threading

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.program import SIZE, Program, Signal, sleep_for_ever
from mlockwipe.contract.task_states import wait_until
from mlockwipe.linux import mm
from mlockwipe.linux.prctl import become_subreaper


def _still_there(program: Program, address: int) -> None:
    """The secret is intact, and the witness says so of the very pages, while the program goes on."""
    program.show(address)
    program.look()
    program.intact("the secret", address)


@case("L4", "parent-after-child", KEPT, "a child exits and never wrote the pages")
def parent_after_child(program: Program) -> None:
    at = program.secret()
    os.waitpid(program.fork(lambda: None), 0)
    _still_there(program, at)


@case("L4", "parent-after-child-killed", KEPT, "a child is killed")
def parent_after_child_killed(program: Program) -> None:
    at = program.secret()
    pid = program.fork(sleep_for_ever)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _still_there(program, at)


@case("L4", "parent-after-child-exec", KEPT, "a child executes another program")
def parent_after_child_exec(program: Program) -> None:
    at = program.secret()
    os.waitpid(program.fork(lambda: os.execv("/bin/true", ["true"])), 0)
    _still_there(program, at)


@case("L4", "parent-after-child-unmaps", KEPT, "a child unmaps its copy and lives on")
def parent_after_child_unmaps(program: Program) -> None:
    at = program.secret()
    unmapped, seen = Signal(), Signal()

    def body() -> None:
        mm.munmap(at, SIZE)
        unmapped.give()
        seen.wait()

    pid = program.fork(body)
    unmapped.wait()
    _still_there(program, at)
    seen.give()
    program.reap(pid)


@case("L4", "child-after-parent", KEPT, "the parent, which locked, exits; the child lives on")
def child_after_parent(program: Program) -> None:
    born, gone = Signal(), Signal()

    def parent() -> None:
        at = program.secret()

        def child() -> None:
            gone.wait()
            _still_there(program, at)

        born.give(program.fork(child))

    become_subreaper()
    os.waitpid(program.fork(parent), 0)
    gone.give()
    os.waitpid(born.wait(), 0)


@case("L4", "child-after-parent-unmaps", KEPT, "the parent, which locked, unmaps; the child lives on")
def child_after_parent_unmaps(program: Program) -> None:
    at = program.secret()
    unmapped = Signal()

    def child() -> None:
        unmapped.wait()
        _still_there(program, at)

    pid = program.fork(child)
    mm.munmap(at, SIZE)
    unmapped.give()
    program.reap(pid)


@case(
    "L4",
    "child-after-parent-exec",
    KEPT,
    "the parent, which locked, executes another program; the child lives on",
)
def child_after_parent_exec(program: Program) -> None:
    born, gone = Signal(), Signal()

    def parent() -> None:
        at = program.secret()

        def child() -> None:
            gone.wait()
            _still_there(program, at)

        born.give(program.fork(child))
        os.execv("/bin/true", ["true"])

    become_subreaper()
    os.waitpid(program.fork(parent), 0)
    gone.give()
    os.waitpid(born.wait(), 0)


@case("L4", "vfork-exec", KEPT, "a vfork child, which shares the memory, executes another program")
def vfork_exec(program: Program) -> None:
    from mlockwipe.contract.machine_code import vfork_exec

    at = program.secret()
    program.show(at)
    pid = vfork_exec("/bin/true", ["true"])
    program.look()
    program.check("how the child ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
    program.intact("the secret", at)


@case("L4", "vfork-exit", KEPT, "a vfork child exits")
def vfork_exit(program: Program) -> None:
    from mlockwipe.contract.machine_code import EXIT_7, vfork

    at = program.secret()
    program.show(at)
    pid = vfork(EXIT_7)
    program.look()
    program.check("how the child ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 7)
    program.intact("the secret", at)


@case("L4", "vfork-exec-fails", KEPT, "a vfork child finds no program to execute, and exits")
def vfork_exec_fails(program: Program) -> None:
    from mlockwipe.contract.machine_code import vfork_exec

    at = program.secret()
    program.show(at)
    pid = vfork_exec("/nonexistent", ["true"])
    program.look()
    program.check("how the child ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 127)
    program.intact("the secret", at)


@case("L4", "vfork-killed", KEPT, "a child that shares the memory is killed")
def vfork_killed(program: Program) -> None:
    from mlockwipe.contract.machine_code import PAUSE, share

    at = program.secret()
    program.show(at)
    pid = share(PAUSE)
    os.kill(pid, signal.SIGKILL)
    program.check("how the child ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGKILL)
    program.look()
    program.intact("the secret", at)


@case("L4", "shared-memory-child", KEPT, "a child made with CLONE_VM exits")
def shared_memory_child(program: Program) -> None:
    from mlockwipe.contract.machine_code import EXIT_7, share

    at = program.secret()
    program.show(at)
    program.check("how the child ended", os.waitstatus_to_exitcode(os.waitpid(share(EXIT_7), 0)[1]), 7)
    program.look()
    program.intact("the secret", at)


@case("L4", "posix-spawn", KEPT, "posix_spawn, again and again")
def posix_spawn(program: Program) -> None:
    at = program.secret()
    program.show(at)
    for _ in range(5):
        pid = os.posix_spawn("/bin/true", ["true"], {})
        program.check("how the child ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
    program.look()
    program.intact("the secret", at)


@case("L4", "subprocess", KEPT, "Python's subprocess, which uses vfork where it can")
def subprocess(program: Program) -> None:
    import subprocess

    at = program.secret()
    program.show(at)
    run = subprocess.run([sys.executable, "-I", "-S", "-c", "print(6 * 7)"], stdout=subprocess.PIPE, check=False)
    program.check("what it printed", run.stdout, b"42\n")
    program.check("how it ended", run.returncode, 0)
    program.look()
    program.intact("the secret", at)


@case("L4", "thread-ends", KEPT, "threads come and go")
def thread_ends(program: Program) -> None:
    at = program.secret()
    program.show(at)
    for _ in range(20):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
    program.look()
    program.intact("the secret", at)


@case("L4", "leader-gone", KEPT, "the first thread leaves; the others live on with the memory")
def leader_gone(program: Program) -> None:
    from mlockwipe.linux.clone import exit_thread

    def body() -> None:
        at = program.secret()
        leader = os.getpid()

        def follow() -> None:
            wait_until("Z", leader)
            _still_there(program, at)
            exit_thread()

        threading.Thread(target=follow).start()
        exit_thread()

    program.reap(program.fork(body))

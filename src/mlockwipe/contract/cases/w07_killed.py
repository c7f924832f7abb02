# SPDX-License-Identifier: MIT
"""W7: the program is ended by a signal."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from functools import partial

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.program import PAGE, PRIVATE, READ_WRITE, Program, Signal, sleep_for_ever
from mlockwipe.contract.steps import killed, no_core, release_early, sleeping_threads, spin
from mlockwipe.contract.task_states import children, threads, wait_until
from mlockwipe.linux import mm, mman
from mlockwipe.linux.clone import exit_thread
from mlockwipe.linux.prctl import become_subreaper

RACES = 24


def _until_four_threads(pid: int) -> None:
    while threads(pid) < 4:
        os.sched_yield()


# By itself


@case("W7", "segv", WIPED, "it reads where nothing is mapped")
def segv(program: Program) -> None:
    no_core()
    program.dies(lambda _: ctypes.string_at(8), -signal.SIGSEGV)


@case("W7", "segv-in-secret", WIPED, "it writes to the secret that it made read-only")
def segv_in_secret(program: Program) -> None:
    def release(at: int) -> None:
        mm.mprotect(at, PAGE, mman.PROT_READ)
        ctypes.memset(at, 1, 1)

    no_core()
    program.dies(release, -signal.SIGSEGV)


@case("W7", "abort", WIPED, "it calls abort")
def abort(program: Program) -> None:
    no_core()
    program.dies(lambda _: os.abort(), -signal.SIGABRT)


@case("W7", "sigterm", WIPED, "SIGTERM, not handled")
def sigterm(program: Program) -> None:
    program.dies(lambda _: os.kill(os.getpid(), signal.SIGTERM), -signal.SIGTERM)


@case("W7", "sigkill-own", WIPED, "it kills itself")
def sigkill_own(program: Program) -> None:
    program.dies(lambda _: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL)


@case(
    "W7",
    "sigkill-program",
    WIPED,
    "the program itself, not a child of it, is killed",
    status=-signal.SIGKILL,
)
def sigkill_program(program: Program) -> None:
    program.show(program.secret())
    os.kill(os.getpid(), signal.SIGKILL)


@case("W7", "seccomp", WIPED, "a seccomp filter of its own kills it")
def seccomp(program: Program) -> None:
    from mlockwipe.contract.seccomp_kill import kill_at_getppid

    def release(_: int) -> None:
        kill_at_getppid()
        os.getppid()

    no_core()
    program.dies(release, -signal.SIGSYS)


@case("W7", "parent-death-signal", WIPED, "the kernel kills it because its parent is gone")
def parent_death_signal(program: Program) -> None:
    from mlockwipe.linux.libc import libc

    ready, born = Signal(), Signal()

    def orphan() -> None:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        program.show(program.secret())
        ready.give()
        sleep_for_ever()

    def parent() -> None:
        born.give(program.fork(orphan))
        ready.wait()

    become_subreaper()
    os.waitpid(program.fork(parent), 0)
    program.reap(born.wait(), -signal.SIGKILL)


# By its parent


@case("W7", "sigkill-asleep", WIPED, "SIGKILL while it sleeps")
def sigkill_asleep(program: Program) -> None:
    killed(program, lambda _: sleep_for_ever(), lambda pid: wait_until("S", pid))


@case("W7", "sigkill-busy", WIPED, "SIGKILL while it computes")
def sigkill_busy(program: Program) -> None:
    killed(program, spin)


@case("W7", "sigkill-stopped", WIPED, "SIGKILL while it is stopped")
def sigkill_stopped(program: Program) -> None:
    def stopped(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)

    killed(program, spin, stopped)


@case("W7", "sigkill-threads-asleep", WIPED, "SIGKILL of four threads that sleep")
def sigkill_threads_asleep(program: Program) -> None:
    def activity(_: int) -> None:
        sleeping_threads(3)
        sleep_for_ever()

    killed(program, activity, _until_four_threads)


@case("W7", "sigkill-threads-busy", WIPED, "SIGKILL of threads that make system calls all the time")
def sigkill_threads_busy(program: Program) -> None:
    import threading

    def busy() -> None:
        while True:
            os.sched_yield()

    def activity(_: int) -> None:
        for _ in range(3):
            threading.Thread(target=busy, daemon=True).start()
        busy()

    killed(program, activity, _until_four_threads)


@case("W7", "sigkill-leader-gone", WIPED, "SIGKILL of a process whose first thread has left")
def sigkill_leader_gone(program: Program) -> None:
    def activity(_: int) -> None:
        sleeping_threads(2)
        exit_thread()

    killed(program, activity, lambda pid: wait_until("Z", pid))


@case("W7", "sigkill-vfork-parent", WIPED, "SIGKILL of it and of the vfork child that shares its memory")
def sigkill_vfork_parent(program: Program) -> None:
    from mlockwipe.contract.machine_code import PAUSE, vfork

    ready = Signal()

    def body() -> None:
        program.show(program.secret())
        ready.give()
        vfork(PAUSE)

    become_subreaper()
    pid = program.fork(body)
    ready.wait()
    while not children(pid):
        os.sched_yield()
    child = children(pid)[0]
    # The parent first: its death alone releases nothing, for the child still uses the memory.
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.kill(child, signal.SIGKILL)
    program.reap(child, -signal.SIGKILL)


@case("W7", "sigkill-twice", WIPED, "SIGKILL again and again until it is gone")
def sigkill_twice(program: Program) -> None:
    ready = Signal()

    def body() -> None:
        program.show(program.secret())
        ready.give()
        spin()

    pid = program.fork(body)
    ready.wait()
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        os.kill(pid, signal.SIGKILL)
    program.reap(pid, -signal.SIGKILL)


@case("W7", "process-mrelease", WIPED, "SIGKILL, and process_mrelease takes the memory back at once")
def process_mrelease(program: Program) -> None:
    killed(program, lambda _: sleep_for_ever(), release_early)


@case("W7", "oom-kill", WIPED, "the kernel kills it for the memory it uses")
def oom_kill(program: Program) -> None:
    from mlockwipe.contract.memory_cgroup import memory_cgroup

    def exhaust(_: int) -> None:
        size = 256 << 20
        ctypes.memset(mm.mmap(0, size, READ_WRITE, PRIVATE), 1, size)

    with memory_cgroup(32 << 20) as join:
        if join is None:
            program.cannot("it needs a memory cgroup of its own to run out of memory in")

        def release(at: int) -> None:
            join()
            exhaust(at)

        program.dies(release, -signal.SIGKILL)


# Races


def _races(program: Program, release: Callable[[int], object]) -> None:
    """Children that release a page while their parent kills them, a little later every time."""
    for race in range(RACES):
        killed(program, release, partial(_spin_for, race * 10_000), 1, None)


def _spin_for(nanoseconds: int, _: int) -> None:
    until = time.perf_counter_ns() + nanoseconds
    while time.perf_counter_ns() < until:
        pass


@case("W7", "sigkill-racing-exit", WIPED, "SIGKILL while it exits by itself")
def sigkill_racing_exit(program: Program) -> None:
    _races(program, lambda _: os._exit(0))


@case("W7", "sigkill-racing-threads-exit", WIPED, "SIGKILL while its threads leave one by one")
def sigkill_racing_threads_exit(program: Program) -> None:
    import threading

    def release(_: int) -> None:
        for _ in range(3):
            threading.Thread(target=exit_thread).start()
        exit_thread()

    _races(program, release)


@case("W7", "sigkill-racing-exec", WIPED, "SIGKILL while it replaces itself")
def sigkill_racing_exec(program: Program) -> None:
    _races(program, lambda _: os.execv("/bin/true", ["true"]))


@case("W7", "sigkill-racing-threads-exec", WIPED, "SIGKILL while it replaces itself with other threads asleep")
def sigkill_racing_threads_exec(program: Program) -> None:
    def release(_: int) -> None:
        sleeping_threads(2)
        os.execv("/bin/true", ["true"])

    _races(program, release)


@case("W7", "sigkill-racing-unmap", WIPED, "SIGKILL while it unmaps the secret")
def sigkill_racing_unmap(program: Program) -> None:
    def release(at: int) -> None:
        mm.munmap(at, PAGE)
        spin()

    _races(program, release)

# SPDX-License-Identifier: MIT
"""L7: how a process ended, and whose child it is, as its relatives see it."""

import ctypes
import os
import signal
import threading

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.program import PAGE, SIZE, Program, Signal, refused, sleep_for_ever
from mlockwipe.contract.steps import no_core, release_early
from mlockwipe.contract.task_states import children, wait_until
from mlockwipe.linux import mm, mman
from mlockwipe.linux.libc import checked, function
from mlockwipe.linux.wait import WALL

WCLONE = 0x80000000 - (1 << 32)  # __WCLONE, as a signed int

_wait4 = function("wait4", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, sleeps=True)


def _wait_for_any(options: int) -> None:
    """wait4 with options that os.waitpid takes for too large."""
    checked(_wait4(-1, None, options, None), "wait4()")


@case("L7", "exit-status", KEPT, "the exit status of the program itself", shows=False, status=42)
def exit_status(program: Program) -> None:
    program.intact("the secret", program.secret())
    os._exit(42)


@case(
    "L7",
    "signal-status",
    KEPT,
    "the signal that ended the program itself",
    shows=False,
    status=-signal.SIGTERM,
)
def signal_status(program: Program) -> None:
    program.intact("the secret", program.secret())
    os.kill(os.getpid(), signal.SIGTERM)
    sleep_for_ever()


@case("L7", "child-exit-status", KEPT, "exit statuses of children", shows=False)
def child_exit_status(program: Program) -> None:
    for status in (0, 1, 2, 126, 127, 128, 137, 255):

        def body(status: int = status) -> None:
            program.secret()
            os._exit(status)

        _, waited = os.waitpid(program.fork(body), 0)
        program.check("the wait status", waited, status << 8)


@case("L7", "child-signal-status", KEPT, "signals that ended children", shows=False)
def child_signal_status(program: Program) -> None:
    no_core()
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGABRT,
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGTERM,
    ):

        def body(number: int = number) -> None:
            program.secret()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            sleep_for_ever()

        _, waited = os.waitpid(program.fork(body), 0)
        program.check("the wait status", waited, int(number))


@case("L7", "child-signal-information", KEPT, "what waitid and SIGCHLD tell of a child", shows=False)
def child_signal_information(program: Program) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])

    def body() -> None:
        program.secret()
        os._exit(3)

    pid = program.fork(body)
    told = signal.sigwaitinfo([signal.SIGCHLD])
    program.check("SIGCHLD", (told.si_pid, told.si_status, told.si_code), (pid, 3, os.CLD_EXITED))
    waited = os.waitid(os.P_PID, pid, os.WEXITED)
    program.check("waitid", waited and (waited.si_pid, waited.si_status, waited.si_code), (pid, 3, os.CLD_EXITED))
    program.check("a second SIGCHLD", signal.sigtimedwait([signal.SIGCHLD], 0.01), None)


@case(
    "L7",
    "no-children",
    KEPT,
    "a program without children has none, of whatever kind it asks for",
    shows=False,
)
def no_children(program: Program) -> None:
    def ask(when: str) -> None:
        for what, options in (("wait", 0), ("__WALL", WALL), ("__WCLONE", WCLONE)):
            program.check(f"{what} {when}", refused(_wait_for_any, os.WNOHANG | options), "ECHILD")
        program.check(f"children {when}", children(os.getpid()), [])

    ask("before the lock")
    at = program.secret()
    ask("after the lock")
    mm.munmap(at, SIZE)
    ask("after the unmap")
    program.secret()
    ask("after another lock")


@case("L7", "no-stray-sigchld", KEPT, "no SIGCHLD but for children of its own", shows=False)
def no_stray_sigchld(program: Program) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    at = program.secret()
    mm.munmap(at, SIZE)
    program.check("SIGCHLD", signal.sigtimedwait([signal.SIGCHLD], 0.05), None)


@case("L7", "own-children", KEPT, "a wait for any child brings each child once, and no other", shows=False)
def own_children(program: Program) -> None:
    program.secret()
    pids = [program.fork(lambda: None) for _ in range(8)]
    program.check("children", sorted(os.wait()[0] for _ in pids), sorted(pids))
    program.check("one more", refused(os.wait), "ECHILD")


def _waited_for_at_once(program: Program) -> None:
    """A pidfd tells of a child's end, and then it can be waited for without waiting."""
    import select

    found = []
    for _ in range(20):
        pid = program.fork(program.secret)
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()
        found.append(os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is not None)
        if not found[-1]:
            os.waitpid(pid, 0)
        os.close(pidfd)
    program.check("children that were there to be waited for", found.count(True), len(found))


@case("L7", "pidfd", KEPT, "a child whose pidfd is readable has ended, for a wait with WNOHANG too", shows=False)
def pidfd_readable(program: Program) -> None:
    program.secret()
    _waited_for_at_once(program)


@case("L7", "pidfd-of-other", KEPT, "the same, where the child has locked memory and the parent none", shows=False)
def pidfd_of_other(program: Program) -> None:
    _waited_for_at_once(program)


@case("L7", "relations", KEPT, "process, parent, group and session numbers", shows=False)
def relations(program: Program) -> None:
    def who() -> tuple[int, ...]:
        return os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0), threading.get_native_id()

    before = who()
    program.secret()
    program.check("after the lock", who(), before)
    pid, group, session = os.getpid(), os.getpgrp(), os.getsid(0)

    def body() -> None:
        program.secret()
        program.check("in the child", (os.getppid(), os.getpgrp(), os.getsid(0)), (pid, group, session))

    program.reap(program.fork(body))


@case("L7", "orphan", KEPT, "an orphan goes to the nearest subreaper", shows=False)
def orphan(program: Program) -> None:
    from mlockwipe.linux.prctl import become_subreaper

    read_end, write_end = os.pipe()
    gone = Signal()

    def grandchild() -> None:
        gone.wait()
        os.write(write_end, str(os.getppid()).encode())

    def child() -> None:
        program.secret()
        program.fork(grandchild)

    become_subreaper()
    os.waitpid(program.fork(child), 0)
    gone.give()
    program.check("the orphan's parent", int(os.read(read_end, 20)), os.getpid())
    os.wait()


@case("L7", "subreaper", KEPT, "a subreaper gets its own orphans, and nothing else", shows=False)
def subreaper(program: Program) -> None:
    from mlockwipe.linux.prctl import become_subreaper

    born = Signal()

    def grandchild() -> None:
        program.secret()

    def child() -> None:
        program.secret()
        born.give(program.fork(grandchild))

    become_subreaper()
    first = program.fork(child)
    expected = {first, born.wait()}
    waited: dict[int, int] = {}
    while (error := refused(lambda: waited.update([os.wait()]))) is None:
        pass
    program.check("how the wait ends", error, "ECHILD")
    program.check("who was waited for", waited, dict.fromkeys(expected, 0))


@case("L7", "subreaper-locks", KEPT, "a subreaper that locks memory has no child by that", shows=False)
def subreaper_locks(program: Program) -> None:
    from mlockwipe.linux.prctl import become_subreaper

    become_subreaper()
    at = program.secret()
    program.check("wait", refused(_wait_for_any, os.WNOHANG | WALL), "ECHILD")
    program.check("children", children(os.getpid()), [])
    mm.munmap(at, SIZE)

    def orphan() -> None:
        os.waitpid(program.fork(lambda: program.fork(lambda: None) and None), 0)
        os.wait()

    program.check("its own orphan", refused(orphan), None)


@case("L7", "process-mrelease", KEPT, "process_mrelease of a child that was killed", shows=False)
def process_mrelease(program: Program) -> None:
    def body() -> None:
        program.secret()
        sleep_for_ever()

    pid = program.fork(body)
    wait_until("S", pid)
    error = release_early(pid)
    # ESRCH: it was quicker to end by itself.
    program.check("process_mrelease", None if error == "ESRCH" else error, None)
    os.waitpid(pid, 0)


# Job control


@case(
    "L7",
    "stop-and-continue",
    KEPT,
    "a child stops, is continued and exits; its parent sees all three",
    shows=False,
)
def stop_and_continue(program: Program) -> None:
    seen = Signal()

    def body() -> None:
        program.secret()
        os.kill(os.getpid(), signal.SIGSTOP)
        seen.wait()  # a parent that is late would see the end only
        os._exit(7)

    pid = program.fork(body)
    status = os.waitpid(pid, os.WUNTRACED)[1]
    program.check("stopped", (os.WIFSTOPPED(status), os.WSTOPSIG(status)), (True, signal.SIGSTOP))
    os.kill(pid, signal.SIGCONT)
    program.check("continued", os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1]), True)
    seen.give()
    program.check("exited", os.waitpid(pid, 0)[1], 7 << 8)


@case("L7", "stays-stopped", KEPT, "a stopped child does nothing until it is continued", shows=False)
def stays_stopped(program: Program) -> None:
    counter = mm.mmap(0, PAGE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    count = ctypes.c_uint64.from_address(counter)

    def body() -> None:
        program.secret()
        while True:
            count.value += 1

    pid = program.fork(body)
    while not count.value:
        os.sched_yield()
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        seen = count.value
        threading.Event().wait(0.01)
        program.check("counted while stopped", count.value - seen, 0)
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, os.WCONTINUED)
        while count.value == seen:
            os.sched_yield()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@case("L7", "threads-stop", KEPT, "all threads of a child stop, and all go on", shows=False)
def threads_stop(program: Program) -> None:
    counter = mm.mmap(0, PAGE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    counts = (ctypes.c_uint64 * 3).from_address(counter)

    def busy(index: int) -> None:
        while True:
            counts[index] += 1
            os.sched_yield()

    def body() -> None:
        program.secret()
        for index in (1, 2):
            threading.Thread(target=busy, args=(index,), daemon=True).start()
        busy(0)

    pid = program.fork(body)
    while not all(counts):
        os.sched_yield()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    seen = list(counts)
    threading.Event().wait(0.01)
    program.check("counted while stopped", list(counts), seen)
    os.kill(pid, signal.SIGCONT)
    while any(now == then for now, then in zip(counts, seen, strict=True)):
        os.sched_yield()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# A program that traces


@case("L7", "own-tracer", KEPT, "a program traces its child, as a debugger does; the child locks", shows=False)
def own_tracer(program: Program) -> None:
    ptrace = function("ptrace", ctypes.c_long, *[ctypes.c_long] * 4)
    traceme, cont = 0, 7

    def body() -> None:
        checked(ptrace(traceme, 0, 0, 0), "ptrace(PTRACE_TRACEME)")
        os.kill(os.getpid(), signal.SIGSTOP)
        at = program.secret()
        program.intact("the secret", at)
        os._exit(11)

    pid = program.fork(body)
    status = os.waitpid(pid, 0)[1]
    program.check("stopped", os.WIFSTOPPED(status) and os.WSTOPSIG(status), signal.SIGSTOP)
    if not os.WIFSTOPPED(status):
        return
    checked(ptrace(cont, pid, 0, 0), "ptrace(PTRACE_CONT)")
    program.check("exited", os.waitpid(pid, 0)[1], 11 << 8)


@case("L7", "traced-later", KEPT, "a program takes hold of its child after the child has locked", shows=False)
def traced_later(program: Program) -> None:
    ptrace = function("ptrace", ctypes.c_long, *[ctypes.c_long] * 4)
    attach, detach = 16, 17
    ready = Signal()

    def body() -> None:
        program.secret()
        ready.give()
        sleep_for_ever()

    pid = program.fork(body)
    ready.wait()
    wait_until("S", pid)
    error = refused(lambda: checked(ptrace(attach, pid, 0, 0), "ptrace(PTRACE_ATTACH)"))
    program.check("ptrace", error, None)
    if error is None:
        program.check("stopped", os.WIFSTOPPED(os.waitpid(pid, 0)[1]), True)
        ptrace(detach, pid, 0, 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

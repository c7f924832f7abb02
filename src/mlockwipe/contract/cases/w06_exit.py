# SPDX-License-Identifier: MIT
"""W6: the program ends by itself.

Most of them end a child, so that the pages are judged at the moment at which its parent's wait is over.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Callable

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import read
from mlockwipe.contract.foreign_abi import EXIT_GROUP, LOW, MLOCK, i386
from mlockwipe.contract.program import PAGES, SIZE, Program, Signal, refused, sleep_for_ever
from mlockwipe.contract.steps import sleeping_threads, write_protected
from mlockwipe.contract.task_states import threads, wait_until
from mlockwipe.linux import mm, mman
from mlockwipe.linux.clone import exit_thread
from mlockwipe.linux.libc import function
from mlockwipe.linux.prctl import set_undumpable

LARGE = 512  # pages, which the kernel clears faster by a task in the memory than through /proc
# It gives up the interpreter's lock, which the thread that ends here would hold for ever.
_pthread_exit = function("pthread_exit", None, ctypes.c_void_p, sleeps=True)


@case("W6", "return", WIPED, "the program itself returns from main")
def return_from_main(program: Program) -> None:
    program.show(program.secret())


@case("W6", "exit-at-once", WIPED, "the program itself calls _exit", status=42)
def exit_at_once(program: Program) -> None:
    program.show(program.secret())
    os._exit(42)


@case("W6", "exit-group", WIPED, "a child calls exit_group, its parent waits")
def exit_group(program: Program) -> None:
    program.dies(lambda _: os._exit(7), 7)


@case("W6", "exit-60", WIPED, "a child of one thread calls exit, not exit_group")
def exit_60(program: Program) -> None:
    program.dies(lambda _: exit_thread())


@case("W6", "waitid-nowait", WIPED, "its parent looks by waitid(WNOWAIT) and leaves it a zombie")
def waitid_nowait(program: Program) -> None:
    def body() -> None:
        program.show(program.secret())

    pid = program.fork(body)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    program.look()
    program.reap(pid)


@case("W6", "waitid-pidfd", WIPED, "its parent waits by a pidfd")
def waitid_pidfd(program: Program) -> None:
    def body() -> None:
        program.show(program.secret())

    pidfd = os.pidfd_open(program.fork(body))
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    program.look()


@case(
    "W6",
    "parent-ignores-children",
    WIPED,
    "SIGCHLD is ignored: the wait ends when there is no child any more",
)
def parent_ignores_children(program: Program) -> None:
    import signal

    def body() -> None:
        program.show(program.secret())

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    pid = program.fork(body)
    program.check("waitpid", refused(os.waitpid, pid, 0), "ECHILD")
    program.look()


@case("W6", "thread-exits-group", WIPED, "one of many threads calls exit_group while the others sleep")
def thread_exits_group(program: Program) -> None:
    def release(_: int) -> None:
        sleeping_threads(3)
        threading.Thread(target=os._exit, args=(5,)).start()
        sleep_for_ever()

    program.dies(release, 5)


def _one_by_one(leave: Callable[[], object]) -> None:
    """All threads leave, the leader first; the process ends with the last of them."""
    leader = os.getpid()

    def follow() -> None:
        wait_until("Z", leader)  # a leader that has left is a zombie for as long as other threads live
        leave()

    for _ in range(3):
        threading.Thread(target=follow).start()
    leave()


@case("W6", "threads-exit-60", WIPED, "every thread leaves by exit(2), the leader first")
def threads_exit_60(program: Program) -> None:
    program.dies(lambda _: _one_by_one(exit_thread))


@case("W6", "threads-pthread-exit", WIPED, "every thread leaves by pthread_exit, the leader first")
def threads_pthread_exit(program: Program) -> None:
    program.dies(lambda _: _one_by_one(lambda: _pthread_exit(None)))


@case("W6", "threads-leader-last", WIPED, "every other thread leaves by exit(2) before the leader does")
def threads_leader_last(program: Program) -> None:
    def release(_: int) -> None:
        for _ in range(3):
            threading.Thread(target=exit_thread).start()
        while threads(os.getpid()) > 1:
            os.sched_yield()
        exit_thread()

    program.dies(release)


@case("W6", "undumpable-after", WIPED, "made undumpable after the first lock, as gpg-agent does")
def undumpable_after(program: Program) -> None:
    program.dies(lambda _: set_undumpable())


@case("W6", "undumpable-before", WIPED, "made undumpable before the first lock, as ssh-agent does")
def undumpable_before(program: Program) -> None:
    def body() -> None:
        set_undumpable()
        program.show(program.secret())

    program.reap(program.fork(body))


@case("W6", "many-ranges", WIPED, "sixteen ranges of a page, locked one by one")
def many_ranges(program: Program) -> None:
    def body() -> None:
        for _ in range(PAGES):
            program.show(program.secret(1), 1)
            mm.mmap(0, mm.PAGE_SIZE, mman.PROT_NONE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)

    program.reap(program.fork(body))


@case("W6", "many-children", WIPED, "sixteen children at once, each with a secret of its own")
def many_children(program: Program) -> None:
    def body() -> None:
        program.show(program.secret(1), 1)

    for pid in [program.fork(body) for _ in range(PAGES)]:
        os.waitpid(pid, 0)
    program.look()


@case("W6", "sealed", WIPED, "the range is sealed: nobody can change its mapping any more")
def sealed(program: Program) -> None:
    def release(at: int) -> None:
        if refused(mm.mseal, at, SIZE) == "ENOSYS":
            program.cannot("this kernel has no mseal (Linux 6.10)")

    program.dies(release)


@case("W6", "odd-file-name", WIPED, "a file is mapped whose name has what other than newline ends a line")
def odd_file_name(program: Program) -> None:
    def release(_: int) -> None:
        for end in ("\f", "\v", "\x1c", "\x85", "\u2028"):
            fd = os.open(f"a{end}b", os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(fd, mm.PAGE_SIZE)
            mm.mmap(0, mm.PAGE_SIZE, mman.PROT_READ, mman.MAP_PRIVATE, fd)

    program.dies(release)


@case("W6", "write-protected", WIPED, "protected by a userfaultfd, which a process that lives on has open")
def protected_by_userfaultfd(program: Program) -> None:
    holder = Signal()

    def body() -> None:
        at = program.secret()
        program.show(at)
        mm.madvise(at, SIZE, mman.MADV_DONTFORK)
        write_protected(program, at, SIZE)
        holder.give(program.fork(sleep_for_ever))

    program.reap(program.fork(body))
    os.kill(holder.wait(), signal.SIGKILL)


@case("W6", "i386-exit", WIPED, "locked by an i386 call, and ended by one")
def i386_exit(program: Program) -> None:
    call = i386(program)

    def body() -> None:
        at = program.plain(flags=LOW)
        call(MLOCK, at, SIZE)
        program.show(at)
        call(EXIT_GROUP, 9)

    program.reap(program.fork(body), 9)


@case("W6", "no-vdso", WIPED, "a program that holds locked memory unmaps its vdso, and ends")
def no_vdso(program: Program) -> None:
    def body() -> None:
        program.show(program.secret(LARGE))
        for line in read("/proc/self/maps").splitlines():
            if line.endswith("[vdso]"):
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                mm.munmap(start, end - start)

    program.reap(program.fork(body))

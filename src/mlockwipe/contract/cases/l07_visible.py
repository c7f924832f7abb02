# SPDX-License-Identifier: MIT
"""L7: what a program knows of itself is the same before its first lock, after it, and after many."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.files import names, read, target
from mlockwipe.contract.foreign_abi import LOW, OLD_MMAP, i386
from mlockwipe.contract.program import PAGE, PAGES, SIZE, Program, refused
from mlockwipe.contract.task_states import threads
from mlockwipe.linux import mm

ROUNDS = 100
_NOBODY_ELSE = 48_271  # a user of whom there is no process


def _same(program: Program, what: str, look: Callable[[], object]) -> None:
    """`look` sees the same all along, in the program and in a child that locks."""
    before = look()
    at = program.secret()
    program.check(f"{what} after the first lock", look(), before)
    for _ in range(ROUNDS):
        mm.munmap(program.secret(1), PAGE)
    program.check(f"{what} after {ROUNDS} locks", look(), before)
    mm.munlock(at, SIZE)
    mm.munmap(at, SIZE)
    program.check(f"{what} after the last unmap", look(), before)

    def child() -> None:
        program.secret()
        program.check(f"{what} in a child", look(), before)

    program.reap(program.fork(child))


def _status(*fields: str) -> dict[str, str]:
    lines = (line.partition(":\t") for line in read("/proc/self/status").splitlines())
    return {name: value.strip() for name, _, value in lines if name in fields}


def _descriptors() -> dict[int, str]:
    descriptors = {}
    for name in names("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor by which the directory was listed
            descriptors[int(name)] = target(f"/proc/self/fd/{name}")
    return descriptors


@case("L7", "descriptors", KEPT, "open files, by number and by what they are", shows=False)
def descriptors(program: Program) -> None:
    _same(program, "descriptors", _descriptors)


@case(
    "L7",
    "inherited-descriptors",
    KEPT,
    "a program is started with the descriptors it is given and no other",
    shows=False,
)
def inherited_descriptors(program: Program) -> None:
    given = {0, 1, 2, program.witness, program.channel} - {-1}
    program.check("at the start", set(_descriptors()), given)


@case("L7", "signal-mask", KEPT, "blocked signals", shows=False)
def signal_mask(program: Program) -> None:
    program.check("at the start", signal.pthread_sigmask(signal.SIG_BLOCK, []), set())
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
    _same(program, "blocked signals", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []))


@case("L7", "signal-actions", KEPT, "signals pending, blocked, ignored and caught", shows=False)
def signal_actions(program: Program) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    _same(program, "signals", lambda: _status("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"))


@case("L7", "affinity", KEPT, "the processors that the program may run on", shows=False)
def affinity(program: Program) -> None:
    _same(program, "processors", lambda: sorted(os.sched_getaffinity(0)))


@case("L7", "affinity-narrow", KEPT, "a program that has chosen one processor stays there", shows=False)
def affinity_narrow(program: Program) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    _same(program, "processors", lambda: sorted(os.sched_getaffinity(0)))


@case("L7", "surroundings", KEPT, "name, users, capabilities, limits, directory, umask", shows=False)
def surroundings(program: Program) -> None:
    os.umask(0o027)
    fields = ["Name", "Umask", "Uid", "Gid", "Groups", "Threads", "CapEff", "CapPrm", "CapInh", "CapAmb"]
    _same(
        program,
        "surroundings",
        lambda: (
            _status(*fields),
            read("/proc/self/limits"),
            target("/proc/self/cwd"),
            os.nice(0),
            os.sched_getscheduler(0),
            threads(os.getpid()),
        ),
    )


@case(
    "L7",
    "dumpable",
    KEPT,
    "whether it may be dumped, when it says so and when it takes it back",
    shows=False,
)
def dumpable(program: Program) -> None:
    from mlockwipe.linux.libc import libc

    get, set_ = 3, 4  # include/uapi/linux/prctl.h: PR_GET_DUMPABLE, PR_SET_DUMPABLE
    _same(program, "dumpable", lambda: libc.prctl(get, 0, 0, 0, 0))
    for value in (0, 1, 0):
        program.check("PR_SET_DUMPABLE", libc.prctl(set_, value, 0, 0, 0), 0)
        program.check("PR_GET_DUMPABLE", libc.prctl(get, 0, 0, 0, 0), value)


@case("L7", "locked-amount", KEPT, "how much it has locked, as /proc tells it", shows=False)
def locked_amount(program: Program) -> None:
    def locked() -> str:
        return _status("VmLck")["VmLck"]

    program.check("before", locked(), "0 kB")
    at = program.secret()
    program.check("after mlock", locked(), f"{PAGES * PAGE >> 10} kB")
    mm.munlock(at, SIZE // 2)
    program.check("after munlock", locked(), f"{PAGES * PAGE >> 11} kB")
    mm.munmap(at, SIZE)
    program.check("after munmap", locked(), "0 kB")


@case("L7", "errors", KEPT, "what mlock and its kin refuse, and how", shows=False)
def errors(program: Program) -> None:
    at = program.secret()
    program.check("mlock of nothing", refused(mm.mlock, at, 0), None)
    program.check("mlock of all", refused(mm.mlock, at, 1 << 62), "ENOMEM")
    program.check("mlock of a hole", refused(mm.mlock, 0x1000, PAGE), "ENOMEM")
    program.check("munlock of a hole", refused(mm.munlock, 0x1000, PAGE), "ENOMEM")
    program.check("mlock2 with a wrong flag", refused(mm.mlock2, at, PAGE, 8), "EINVAL")
    program.check("mlockall of nothing", refused(mm.mlockall, 0), "EINVAL")
    program.check("mlockall with a wrong flag", refused(mm.mlockall, 64), "EINVAL")
    program.intact("the secret", at)


@case("L7", "i386-map-refused", KEPT, "an i386 mmap whose arguments are in memory that is not there: EFAULT")
def i386_map_refused(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    program.check("mmap", refused(call, OLD_MMAP, 1), "EFAULT")
    program.look()
    program.intact("the secret", at)


@case("L7", "usage-of-children", KEPT, "what its children have used, of a program that has none", shows=False)
def usage_of_children(program: Program) -> None:
    import resource

    _same(program, "usage", lambda: resource.getrusage(resource.RUSAGE_CHILDREN)[:3])


@case("L7", "process-limit", KEPT, "a user who may have three processes, and has one that locks, forks", shows=False)
def process_limit(program: Program) -> None:
    import resource

    if os.geteuid() != 0:
        program.cannot("only root can become a user who has no other process")

    def body() -> None:
        os.setgroups([])
        os.setresgid(_NOBODY_ELSE, _NOBODY_ELSE, _NOBODY_ELSE)
        os.setresuid(_NOBODY_ELSE, _NOBODY_ELSE, _NOBODY_ELSE)
        resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))
        program.secret()
        program.check("fork", refused(lambda: program.reap(program.fork(lambda: None))), None)

    program.reap(program.fork(body))

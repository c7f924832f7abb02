# SPDX-License-Identifier: MIT
"""The two seccomp filters: which calls the supervisor hears of, and how.

Filter one is installed before the program is executed and inherited by every descendant. It only reports the few
calls with which a program *starts* to have something to protect, or becomes undumpable: other programs are never
stopped. Filter two is added to a process at its first lock: from then on the calls that release or unlock memory
stop it for its tracer.
"""

import os

from mlockwipe.linux.arch import ABIS, Abi
from mlockwipe.linux.libseccomp import (
    RET_TRACE,
    RET_USER_NOTIF,
    Rule,
    compile_filter,
    differs,
    equal,
    equal_int,
    has_flag,
    masked,
)
from mlockwipe.linux.mman import (
    CLONE_UNTRACED,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_GUARD_INSTALL,
    MAP_FIXED,
    MAP_LOCKED,
)
from mlockwipe.linux.prctl import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_MM,
    PR_SET_PDEATHSIG,
    PR_SET_SECCOMP,
)
from mlockwipe.linux.seccomp_filter import FLAG_NEW_LISTENER, SECCOMP_MODE_STRICT, SET_MODE_FILTER, SET_MODE_STRICT
from mlockwipe.linux.shm import IPC_SHMAT
from mlockwipe.linux.userfaultfd import MOVE

# The supervisor makes an undumpable child dumpable for a moment, to open its files in /proc, and a subreaper none. It
# marks its own call back by an argument that prctl(2) ignores, or it would have to answer its own notification. It
# marks mlock2(2), too, by which it locks again what it has moved out of the way of a call.
OWN_PRCTL = OWN_MLOCK2 = 0x6D6C6F63

# What begins I/O that may refer to memory while that is released.
MAKES_RING = frozenset(("io_setup", "io_uring_setup"))
OPENS_DIRECTLY = frozenset(("open", "openat", "openat2", "fcntl", "fcntl64"))
_F_SETFL = 4

RELEASING_ADVICE = (MADV_DONTNEED, MADV_FREE, MADV_DONTNEED_LOCKED, MADV_GUARD_INSTALL)


def filter_one() -> bytes:
    """User notification of locks, of becoming undumpable, of what a program under a filter can't have (a notification
    listener of its own, and seccomp's strict mode), of a signal asked for at the parent's death (the parent of the
    command is a supervisor, which does not die then), and of who gets orphans, as helper tasks of ours are."""

    def rules(abi: Abi) -> list[Rule]:
        return [
            *((RET_USER_NOTIF, call, ()) for call in ("mlock", "mlockall")),
            (RET_USER_NOTIF, "mlock2", (differs(3, OWN_MLOCK2),)),
            (RET_USER_NOTIF, "prctl", (equal_int(0, PR_SET_DUMPABLE), equal(1, 0), differs(2, OWN_PRCTL))),
            (RET_USER_NOTIF, "prctl", (equal_int(0, PR_SET_PDEATHSIG),)),
            (RET_USER_NOTIF, "prctl", (equal_int(0, PR_SET_CHILD_SUBREAPER), differs(2, OWN_PRCTL))),
            (RET_USER_NOTIF, "seccomp", (equal_int(0, SET_MODE_FILTER), has_flag(1, FLAG_NEW_LISTENER))),
            # To say why they fail. libseccomp makes the second with flags, to find out whether there is seccomp.
            (RET_USER_NOTIF, "prctl", (equal_int(0, PR_SET_SECCOMP), equal(1, SECCOMP_MODE_STRICT))),
            (RET_USER_NOTIF, "seccomp", (equal_int(0, SET_MODE_STRICT), equal(1, 0))),
            (RET_USER_NOTIF, abi.mmap, (has_flag(3, MAP_LOCKED),)),
            *([(RET_USER_NOTIF, abi.mmap_in_memory, ())] if abi.mmap_in_memory else ()),
        ]

    return compile_filter([(abi.filtered_as, rules(abi)) for abi in ABIS.values()])


def filter_two(*, unmap: bool) -> bytes:
    """Stops at the calls that unlock memory and, if `unmap`, at those that release or move it; and at some others for
    which the order of events would not be what it is without us."""

    def rules(abi: Abi) -> list[Rule]:
        unlocking: list[Rule] = [
            (RET_TRACE, "munlock", ()),
            (RET_TRACE, "munlockall", ()),
            # a child that is not traced would get ENOSYS from every call that this filter traces
            (RET_TRACE, "clone", (has_flag(0, CLONE_UNTRACED),)),
            (RET_TRACE, "clone3", ()),
            *((RET_TRACE, call, ()) for call in MAKES_RING),
            # while we have no priority, a task of real time would wait for us in vain
            *((RET_TRACE, call, ()) for call in ("sched_setscheduler", "sched_setparam", "sched_setattr")),
            # a child's end that a pidfd has told of already may wait for us
            (RET_TRACE, "wait4", (has_flag(2, os.WNOHANG),)),
            (RET_TRACE, "waitid", (has_flag(3, os.WNOHANG),)),
            *([(RET_TRACE, "waitpid", (has_flag(2, os.WNOHANG),))] if "waitpid" in abi.numbers else ()),
        ]
        setting = (equal_int(1, _F_SETFL), has_flag(2, os.O_DIRECT))
        releasing: list[Rule] = [
            *((RET_TRACE, call, ()) for call in ("munmap", "mremap", "brk", "shmat", "process_madvise")),
            # the lower half of its first argument is the call, the upper a version (ksys_ipc in ipc/syscall.c)
            *([(RET_TRACE, "ipc", (masked(0, 0xFFFF, IPC_SHMAT),))] if "ipc" in abi.numbers else ()),
            (RET_TRACE, abi.mmap, (has_flag(3, MAP_FIXED),)),
            (RET_TRACE, "prctl", (equal_int(0, PR_SET_MM),)),
            (RET_TRACE, "ioctl", (equal_int(1, MOVE),)),
            *((RET_TRACE, "madvise", (equal_int(2, advice),)) for advice in RELEASING_ADVICE),
            (RET_TRACE, "open", (has_flag(1, os.O_DIRECT),)),
            (RET_TRACE, "openat", (has_flag(2, os.O_DIRECT),)),
            (RET_TRACE, "openat2", ()),
            *((RET_TRACE, call, setting) for call in OPENS_DIRECTLY & abi.numbers.keys() if call.startswith("fcntl")),
        ]
        return unlocking + releasing if unmap else unlocking

    return compile_filter([(abi.filtered_as, rules(abi)) for abi in ABIS.values()])

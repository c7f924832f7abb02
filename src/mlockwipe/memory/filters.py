# SPDX-License-Identifier: MIT
"""The two seccomp filters: which calls the supervisor hears of, and how.

Filter one is installed before the program is executed and inherited by every descendant. It only reports the few
calls with which a program *starts* to have something to protect, or becomes undumpable: other programs are never
stopped. Filter two is added to a process at its first lock: from then on the calls that release or unlock memory
stop it for its tracer.
"""

from mlockwipe.linux.arch import ABIS, Abi
from mlockwipe.linux.libseccomp import (
    RET_TRACE,
    RET_USER_NOTIF,
    Rule,
    compile_filter,
    differs,
    equal,
    has_flag,
)
from mlockwipe.linux.mman import (
    CLONE_UNTRACED,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MAP_FIXED,
    MAP_LOCKED,
)
from mlockwipe.linux.prctl import PR_SET_DUMPABLE, PR_SET_SECCOMP
from mlockwipe.linux.seccomp_filter import FLAG_NEW_LISTENER, SECCOMP_MODE_STRICT, SET_MODE_FILTER, SET_MODE_STRICT

# The supervisor makes an undumpable child dumpable for a moment, to open its files in /proc. It marks its own call
# back by an argument that prctl(2) ignores, or it would have to answer its own notification.
OWN_PRCTL = 0x6D6C6F63

RELEASING_ADVICE = (MADV_DONTNEED, MADV_FREE, MADV_DONTNEED_LOCKED)


def filter_one() -> bytes:
    """User notification of locks, of becoming undumpable, and of what a program under a filter can't have: a
    notification listener of its own, and seccomp's strict mode."""

    def rules(abi: Abi) -> list[Rule]:
        return [
            *((RET_USER_NOTIF, call, ()) for call in ("mlock", "mlock2", "mlockall")),
            (RET_USER_NOTIF, "prctl", (equal(0, PR_SET_DUMPABLE), equal(1, 0), differs(2, OWN_PRCTL))),
            (RET_USER_NOTIF, "seccomp", (equal(0, SET_MODE_FILTER), has_flag(1, FLAG_NEW_LISTENER))),
            # To say why they fail. libseccomp makes the second with flags, to find out whether there is seccomp.
            (RET_USER_NOTIF, "prctl", (equal(0, PR_SET_SECCOMP), equal(1, SECCOMP_MODE_STRICT))),
            (RET_USER_NOTIF, "seccomp", (equal(0, SET_MODE_STRICT), equal(1, 0))),
            (RET_USER_NOTIF, abi.mmap, (has_flag(3, MAP_LOCKED),)),
            *([(RET_USER_NOTIF, abi.mmap_in_memory, ())] if abi.mmap_in_memory else ()),
        ]

    return compile_filter([(abi.filtered_as, rules(abi)) for abi in ABIS.values()])


def filter_two(*, unmap: bool) -> bytes:
    """Stops at the calls that unlock memory and, if `unmap`, at those that release or move it."""

    def rules(abi: Abi) -> list[Rule]:
        unlocking: list[Rule] = [
            (RET_TRACE, "munlock", ()),
            (RET_TRACE, "munlockall", ()),
            # a child that is not traced would get ENOSYS from every call that this filter traces
            (RET_TRACE, "clone", (has_flag(0, CLONE_UNTRACED),)),
            (RET_TRACE, "clone3", ()),
        ]
        releasing: list[Rule] = [
            *((RET_TRACE, call, ()) for call in ("munmap", "mremap", "brk", "shmat", "process_madvise")),
            (RET_TRACE, abi.mmap, (has_flag(3, MAP_FIXED),)),
            *((RET_TRACE, "madvise", (equal(2, advice),)) for advice in RELEASING_ADVICE),
        ]
        return unlocking + releasing if unmap else unlocking

    return compile_filter([(abi.filtered_as, rules(abi)) for abi in ABIS.values()])

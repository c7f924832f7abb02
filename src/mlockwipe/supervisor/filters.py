# SPDX-License-Identifier: MIT
"""The two seccomp filters: which calls the supervisor hears of, and how.

Filter one is installed before the program is executed and inherited by every descendant. It only speaks of the few
calls with which a program *starts* to have something to protect, so a program that never locks memory is never
stopped. Filter two is added to a process at its first lock: from then on the calls that release or unlock memory
stop it for its tracer.
"""

from mlockwipe.linux.libseccomp import (
    ARCH_X32,
    ARCH_X86,
    ARCH_X86_64,
    RET_TRACE,
    RET_USER_NOTIF,
    Rule,
    compile_filter,
    differs,
    equal,
    has_flag,
)
from mlockwipe.linux.prctl import PR_SET_DUMPABLE
from mlockwipe.linux.seccomp_filter import FLAG_NEW_LISTENER

MAP_FIXED = 0x10
MAP_LOCKED = 0x2000
CLONE_UNTRACED = 0x00800000

MADV_DONTNEED = 4
MADV_FREE = 8
MADV_DONTNEED_LOCKED = 24

# The supervisor makes an undumpable child dumpable for a moment, to open its files in /proc. It marks its own call
# back by an argument that prctl(2) ignores, or it would have to answer its own notification.
OWN_PRCTL = 0x6D6C6F63

_SET_MODE_FILTER = 1
_RELEASING_ADVICE = (MADV_DONTNEED, MADV_FREE, MADV_DONTNEED_LOCKED)


def filter_one() -> bytes:
    """User notification of locks, of becoming undumpable, and of a program's own notification listener."""

    def rules(*mmap: Rule) -> list[Rule]:
        return [
            *((RET_USER_NOTIF, call, ()) for call in ("mlock", "mlock2", "mlockall")),
            (RET_USER_NOTIF, "prctl", (equal(0, PR_SET_DUMPABLE), equal(1, 0), differs(2, OWN_PRCTL))),
            (RET_USER_NOTIF, "seccomp", (equal(0, _SET_MODE_FILTER), has_flag(1, FLAG_NEW_LISTENER))),
            *mmap,
        ]

    locked = (has_flag(3, MAP_LOCKED),)
    # the older of the two mmap calls of i386 has its flags in memory, where a filter can't look
    i386 = rules((RET_USER_NOTIF, "mmap2", locked), (RET_USER_NOTIF, "mmap", ()))
    return compile_filter([((ARCH_X86_64, ARCH_X32), rules((RET_USER_NOTIF, "mmap", locked))), ((ARCH_X86,), i386)])


def filter_two(*, unmap: bool) -> bytes:
    """Stops at the calls that unlock memory and, if `unmap`, at those that release or move it."""

    def rules(mmap: str) -> list[Rule]:
        unlocking: list[Rule] = [
            (RET_TRACE, "munlock", ()),
            (RET_TRACE, "munlockall", ()),
            # a child that is not traced would get ENOSYS from every call that this filter traces
            (RET_TRACE, "clone", (has_flag(0, CLONE_UNTRACED),)),
            (RET_TRACE, "clone3", ()),
        ]
        releasing: list[Rule] = [
            *((RET_TRACE, call, ()) for call in ("munmap", "mremap", "brk", "shmat", "process_madvise")),
            (RET_TRACE, mmap, (has_flag(3, MAP_FIXED),)),
            *((RET_TRACE, "madvise", (equal(2, advice),)) for advice in _RELEASING_ADVICE),
        ]
        return unlocking + releasing if unmap else unlocking

    return compile_filter([((ARCH_X86_64, ARCH_X32), rules("mmap")), ((ARCH_X86,), rules("mmap2"))])

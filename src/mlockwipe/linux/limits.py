# SPDX-License-Identifier: MIT
"""Resource limits, of this process and of others (prlimit(2))."""

import contextlib
import resource
from resource import RLIM_INFINITY

_ROOM = (
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
    resource.RLIMIT_MEMLOCK,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_CPU,
)


def raise_limits(pid: int) -> None:
    """Take from a process what limits its memory, its children, descriptors and time, as far as that is allowed here.

    And let it dump no core.
    """
    with contextlib.suppress(OSError, ValueError):  # it has changed its user, and CAP_SYS_RESOURCE is not ours
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        for limit in _ROOM:
            soft, hard = resource.prlimit(pid, limit)
            if soft == hard == RLIM_INFINITY:
                continue
            try:
                resource.prlimit(pid, limit, (RLIM_INFINITY, RLIM_INFINITY))
            except (OSError, ValueError):
                resource.prlimit(pid, limit, (hard, hard))


def why_killed(used: float) -> str:
    """What to add to the sentence that a process like this one was killed, after `used` seconds of processor time."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    reached = hard != RLIM_INFINITY and used > hard - 0.5
    return f" (it had used the {hard} s of `ulimit -t`)" if reached else ""

# SPDX-License-Identifier: MIT
"""A stopped task of a program that is not ours, while it executes calls for us."""

import contextlib
import errno

from mlockwipe.linux import ptrace
from mlockwipe.linux.wait import Stop, TaskGone, TrapStop, await_stop

# No O_EXITKILL: a foreign program goes on when its tracer is gone.
OPTIONS = ptrace.O_TRACESYSGOOD | ptrace.O_TRACEFORK | ptrace.O_TRACEVFORK | ptrace.O_TRACECLONE | ptrace.O_TRACEEXEC


at_our_mercy: set[int] = set()  # still, because they were stuck when they were to stop


class AtOurMercy:
    """For the time in which a stopped task executes calls for us: let it die with us.

    Half-way through, it could not go on by itself, and a helper task would run on into the program's code. Its own
    seccomp filters would forbid some of the calls, or kill it for them; OSError when they can't be suspended.

    At the end of it the task is in another stop, `stop`, on its way to user space: in the one after a single step
    it would be left with the trap flag when its tracer dies, and be killed by SIGTRAP (exit_ptrace does not clear it,
    Linux 6.18). The new stop is that of its group, if that is stopped.
    """

    def __init__(self, tid: int, *, suspend_seccomp: bool) -> None:
        self._tid = tid
        self._options = OPTIONS | ptrace.O_EXITKILL | (ptrace.O_SUSPEND_SECCOMP if suspend_seccomp else 0)
        self.stop: Stop = TrapStop(tid)

    def __enter__(self) -> None:
        try:
            ptrace.set_options(self._tid, self._options)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            raise OSError(
                error.errno,
                "it has seccomp filters of its own, which only root can suspend for a keeper's calls",
            ) from None

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, TaskGone):
            at_our_mercy.add(self._tid)
            ptrace.interrupt(self._tid)
            with contextlib.suppress(ProcessLookupError):  # it is stuck in a call, and not stopped
                ptrace.cont(self._tid)
            self.stop = await_stop(self._tid)
            ptrace.set_options(self._tid, OPTIONS)
        at_our_mercy.discard(self._tid)

# SPDX-License-Identifier: MIT
"""Tasks of programs that are not ours, in their stops: what must be known of them and done to them."""

import contextlib
import errno
from collections.abc import Iterator

from mlockwipe.linux import ptrace

# No O_EXITKILL: a foreign program goes on when its tracer is gone.
OPTIONS = ptrace.O_TRACEFORK | ptrace.O_TRACEVFORK | ptrace.O_TRACECLONE | ptrace.O_TRACEEXEC


@contextlib.contextmanager
def at_our_mercy(tid: int, *, suspend_seccomp: bool) -> Iterator[None]:
    """For the time in which a stopped task executes calls for us, and what it makes is ours: let it die with us.

    Half-way through, it could not go on by itself, and a helper task would run on into the program's code. Its own
    seccomp filters would forbid some of the calls, or kill it for them; OSError when they can't be suspended.
    """
    options = OPTIONS | ptrace.O_EXITKILL
    try:
        ptrace.set_options(tid, options | (ptrace.O_SUSPEND_SECCOMP if suspend_seccomp else 0))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        raise OSError(
            error.errno, "it has seccomp filters of its own, which only root can suspend for the calls of a keeper"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            ptrace.set_options(tid, OPTIONS)

# SPDX-License-Identifier: MIT
"""The supervisor: `mlockwipe run`, on a stock kernel. docs/threat-model.md explains its limits to users."""

import sys

from mlockwipe.carriers.carrier import Carrier

# -P: a directory named mlockwipe where the user happens to stand is not ours
_RUN = (sys.executable, "-P", "-m", "mlockwipe", "run", "--quiet", "--")

_IN_SWAP = "what is in swap is not resident: the kernel frees what it keeps of it in the swap cache as it is"
_IN_A_PIPE = "no unprivileged process can see that a pipe still refers to a page"

_LIMITS = {
    "W5-io-uring-madvise": "a request of io_uring is no system call, so no filter sees it",
    "W11-truncated": "the page is released by whoever truncates the file, not by a call of the program",
    "W12-child-swapped": _IN_SWAP,
    "W12-child-half-back-from-swap": _IN_SWAP,
    "W12-child-back-from-swap": "the kernel has given the page back before, when it swapped its contents out",
    "W12-child-copy-refused": "Linux 6.1 copies a page before it asks whether there is room, and frees the copy",
    "W13-collapse": "the kernel gives the small pages back when it has copied them into a huge one",
    "W13-copied-after-fork": "the kernel gives the huge page back when it has copied all of it to small ones",
    "L6-tcp-zerocopy": "no unprivileged process can see that a socket still refers to a page",
    "L6-vmsplice-sigkill": _IN_A_PIPE,
    "L6-vmsplice-munmap": _IN_A_PIPE,
    "L7-subreaper": "a program that adopts orphans adopts the keepers of its descendants, and sees their ends",
    "L7-traced-later": "a task has one tracer, and the supervisor is it",
    "L7-timer-first-lock": "before a process is traced, a signal can interrupt the wait for the supervisor",
    "L7-usage-of-children": "the task that the keeper is made by is a child of the program for a moment",
    "L7-process-limit": "keeper and worker are processes of the program's user",
    "L7-process-mrelease": "the keeper uses the memory too, and only memory without other users is reaped",
}

SUPERVISOR = Carrier("supervisor", _RUN, limits=_LIMITS)

# SPDX-License-Identifier: MIT
"""Cases of the contract that the supervisor can't fulfil, and why: what docs/threat-model.md tells its users."""

_IN_SWAP = "what is in swap is not resident: the kernel frees what it keeps of it in the swap cache as it is"
_IN_A_PIPE = "no unprivileged process can see that a pipe still refers to a page"

LIMITS = {
    "W5-io-uring-madvise": "a request of io_uring is no system call, so no filter sees it",
    "W11-truncated": "the page is released by whoever truncates the file, not by a call of the program",
    "W12-child-swapped": _IN_SWAP,
    "W12-child-half-back-from-swap": _IN_SWAP,
    "L6-tcp-zerocopy": "no unprivileged process can see that a socket still refers to a page",
    "L6-vmsplice-sigkill": _IN_A_PIPE,
    "L6-vmsplice-munmap": _IN_A_PIPE,
    "L7-subreaper": "a program that adopts orphans adopts the keepers of its descendants, and sees their ends",
    "L7-traced-later": "a task has one tracer, and the supervisor is it",
    "L7-timer-first-lock": "before a process is traced, a signal can interrupt the wait for the supervisor",
    "L7-process-mrelease": "the keeper uses the memory too, and only memory without other users is reaped",
}

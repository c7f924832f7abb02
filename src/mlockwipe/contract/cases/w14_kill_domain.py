# SPDX-License-Identifier: MIT
"""W14: everything around the program is killed at once, and what supervises is outside of it."""

import os
import signal

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.program import PAGES, Program, Signal
from mlockwipe.linux.clone import unshare
from mlockwipe.linux.mman import CLONE_NEWPID, CLONE_NEWUSER

MEMBERS = 4
PART = PAGES // MEMBERS

TYPE_CHECKING = False  # typing's own constant costs the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable


def _killed_together(program: Program, kill: "Callable[[list[int]], None]") -> None:
    """Children hold a secret each; all are killed, and judged when all have been reaped."""
    ready = Signal()

    def body() -> None:
        program.show(program.secret(PART), PART)
        ready.give()
        signal.pause()

    pids = [program.fork(body) for _ in range(MEMBERS)]
    for _ in pids:
        ready.wait()
    kill(pids)
    # Process 1 of a PID namespace, which would be the first, ends last.
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in reversed(pids)]
    program.look()
    program.check("how they ended", ends, [-signal.SIGKILL] * MEMBERS)


@case("W14", "each", WIPED, "SIGKILL for each process, one after the other")
def each(program: Program) -> None:
    def kill(pids: list[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    _killed_together(program, kill)


@case("W14", "pid-namespace", WIPED, "process 1 of their PID namespace is killed")
def pid_namespace(program: Program) -> None:
    try:
        unshare(CLONE_NEWPID | (CLONE_NEWUSER if os.geteuid() else 0))
    except OSError as error:
        program.cannot(f"no PID namespace can be made here: {error.strerror}")
    _killed_together(program, lambda pids: os.kill(pids[0], signal.SIGKILL))

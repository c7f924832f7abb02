# SPDX-License-Identifier: MIT
"""The processes of a key manager: all that descend from this one, whoever started them."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlockwipe.linux import procfs
from mlockwipe.linux.prctl import become_subreaper

TIMEOUT = 300.0  # seconds; an emulated machine is slow, and only a hang takes so long
OURS = "mlockwipe-"  # the names of the supervisor's own processes begin so
_STOPPED = frozenset("Tt")


class Hangs(Exception):
    """Something that had to happen did not."""


@contextmanager
def all_ended() -> Iterator[None]:
    """Whatever is started within is ended with the block, daemons too."""
    become_subreaper()
    before = set(descendants())
    try:
        yield
    finally:
        end(before)


def end(but: set[int]) -> None:
    """Kill every descendant that is not one of `but`: programs first, so that what wipes can end by itself."""
    deadline = time.monotonic() + TIMEOUT
    while left := {pid: name for pid, name in descendants().items() if pid not in but}:
        programs = [pid for pid, name in left.items() if not name.startswith(OURS)]
        late = time.monotonic() > deadline - TIMEOUT / 2
        for pid in left if late else programs:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise Hangs(f"these do not end: {left}")
        time.sleep(0.02)
    with suppress(ChildProcessError):  # orphans that came to this process; Popen copes with a child that is gone
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants() -> dict[int, str]:
    """The living ones, by name."""
    parents, names = {}, {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            name, _, rest = stat.partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            parents[pid] = int(parent)
            if state not in "ZX":
                names[pid] = name
    found, ours = {}, {os.getpid()}
    while ours:
        ours = {pid for pid, parent in parents.items() if parent in ours}
        found.update({pid: names[pid] for pid in ours if pid in names})
    return found


def named(names: Sequence[str]) -> list[int]:
    """The living descendants with one of these names (comm), oldest first."""
    return sorted(pid for pid, name in descendants().items() if name in names)


def stop(pids: Sequence[int]) -> list[int]:
    """Stop processes, all of their threads, and say which of them stand still now; the others are gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + TIMEOUT
    while True:
        states = {pid: _states(pid) for pid in pids}
        states = {pid: state for pid, state in states.items() if state and not state & {"Z", "X"}}
        if all(state <= _STOPPED for state in states.values()):
            return sorted(states)
        if time.monotonic() > deadline:
            raise Hangs(f"these do not stop: {states}")
        time.sleep(0.001)


def _states(pid: int) -> set[str]:
    states = set()
    for tid in procfs.tasks(pid):
        with suppress(OSError):
            states.add(procfs.stat_fields(tid)[0])
    return states


def resume(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill(pids: Sequence[int]) -> None:
    """SIGKILL, and wait until they are gone: zombies at most."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(pids) & set(descendants()), f"{pids} do not die")


def wait_until(true: Callable[[], object], otherwise: str, timeout: float = TIMEOUT) -> None:
    """Raises Hangs."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise Hangs(otherwise)
        time.sleep(0.01)

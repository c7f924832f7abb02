# SPDX-License-Identifier: MIT
"""The end of a program that never needed its supervisor, which takes 20 ms to import: longer than many programs run.

So the import waits for a few milliseconds, and then goes piece by piece. It is done at once when the program asks for
something, and left off when by then the program has ended and left nothing behind.
"""

import os
import select

from mlockwipe.linux import signals
from mlockwipe.linux.read_file import in_proc
from mlockwipe.memory.journal import Journal
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.options import Options

_PATIENCE = 5  # milliseconds by which the import is late for a program that runs on
_PIECES = (  # of the supervisor, by what takes 2 to 5 ms
    "contextlib",
    "signal",
    "mlockwipe.linux.procfs",
    "mlockwipe.memory.address_space",
    "mlockwipe.supervisor.filtered",
    "mlockwipe.supervisor.supervisor",
)


def wait(program: int, listener: int, front: Channel, journal: Journal) -> os.waitid_result | None:
    """How the program ended, if it did so in time and no descendant is left: it is reaped then.

    None otherwise. The supervisor may have been imported in part by then.
    """
    pidfd = os.pidfd_open(program)
    poll = select.poll()
    for fd in (pidfd, listener, front.fileno()):
        poll.register(fd, select.POLLIN)
    ready = dict(poll.poll(_PATIENCE))
    for piece in _PIECES:
        if ready:
            break
        __import__(piece)
        ready = dict(poll.poll(0))
    if ready == {listener: select.POLLHUP}:  # the last task that has the filter is about to be dead (Linux 6.11)
        poll.unregister(listener)
        ready = dict(poll.poll(_PATIENCE))
    os.close(pidfd)
    # A descendant, or a notification of one, would be left to whoever supervises; so would the death of the front.
    if pidfd not in ready or front.fileno() in ready or _children() != [program]:
        return None
    if signals.pending() & ~signals.as_bits((signals.SIGCHLD,)):  # from the program to its parent
        return None
    end = os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT)
    assert end is not None
    journal.note_end(end.si_status, end.si_code)  # for the guardian, should we be killed now
    return os.waitid(os.P_PID, program, os.WEXITED)


def report(end: os.waitid_result, options: Options, front: Channel) -> None:
    """What the supervisor does when its last process has ended."""
    exited = end.si_code == os.CLD_EXITED
    if options.report_file is not None or options.verbosity > 0:
        from mlockwipe.supervisor.report import Report

        report = Report(options.told, options.report_file)
        report.status = {"exit" if exited else "signal": end.si_status}
        if options.verbosity > 0:
            front.send("say", report.summary())
        try:
            report.write(final=True)
        except OSError as error:
            front.send("say", f"the report can't be written: {error.strerror}")
    front.send("ended")
    front.send("exited" if exited else "killed", end.si_status)


def _children() -> list[int] | None:
    """Ours, those that have ended included; None where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        with open("thread-self/children", "rb", opener=in_proc) as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return None

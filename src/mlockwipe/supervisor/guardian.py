# SPDX-License-Identifier: MIT
"""The guardian: parent of the supervisor, and its replacement when it is killed.

The death of a tracer kills the tasks of the program (PTRACE_O_EXITKILL), not their keepers, which sleep on with the
memory. The guardian is the nearest subreaper then: it wipes what the journal names, ends the keepers, and goes on as
the supervisor for the processes that had never locked anything and so were not traced.
"""

import os

from mlockwipe.linux import prctl
from mlockwipe.linux.read_file import names_in_proc, proc_directory
from mlockwipe.memory.journal import Journal, SaveArea
from mlockwipe.supervisor import launch, short_run
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.options import Options
from mlockwipe.suppress import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mlockwipe.supervisor.custody import Entrusted

DEFECT = "this is a defect of mlockwipe, please report it:"  # and a traceback: nothing else that is said has lines


def guard(options: Options, filter_one: bytes, signal_mask: set[int], front: Channel) -> None:
    """In the guardian process: run a supervisor, and take over if it does not end by itself."""
    front_pid = os.getppid()
    prctl.become_subreaper()
    journal, save_area = Journal(), SaveArea()
    ours, supervisors = Channel.pair()
    try:
        supervisor = os.fork()
    except OSError as error:
        front.send("failed", 125, launch.why_no_process(error))
        return
    if supervisor == 0:
        ours.close()
        prctl.become_subreaper()
        prctl.set_name(b"mlockwipe-super")
        try:
            _supervise(options, filter_one, signal_mask, front, front_pid, supervisors, journal, save_area)
            os._exit(0)
        except Exception:
            tell_defect(front)
        os._exit(1)
    supervisors.close()
    prctl.set_name(b"mlockwipe-guard")
    let_go_of_shell(front.fileno(), ours.fileno(), *options.descriptors)
    from mlockwipe.linux import limits  # here, while the supervisor starts the program
    from mlockwipe.supervisor.custody import Entrusted

    limits.raise_limits(os.getpid())  # each address space takes three descriptors
    prctl.set_undumpable()
    left = Entrusted()
    left.take_all(ours)
    _, status, used = os.wait4(supervisor, 0)
    if status == 0 or left.listener == -1:
        return
    prctl.set_name(b"mlockwipe-super")
    why = limits.why_killed(used.ru_utime + used.ru_stime)
    front.send("say", f"the supervisor was killed{why}; its guardian wipes what it left and takes its place")
    save_area.clear()
    from mlockwipe.supervisor.recovery import recover

    pages = 0
    try:
        pages = recover(journal, left.files)
    except Exception:  # those that have not locked anything yet go on all the same
        tell_defect(front)
    end = journal.program_end()
    journal.clear()
    _take_over(options, left, front, front_pid, journal, save_area, pages, end)


def tell_defect(front: Channel) -> None:
    """Send the traceback of the exception that is handled to the front: stderr is not ours here."""
    import traceback

    front.send("say", f"{DEFECT}\n{traceback.format_exc()}")


def _supervise(
    options: Options,
    filter_one: bytes,
    signal_mask: set[int],
    front: Channel,
    front_pid: int,
    guardian: Channel,
    journal: Journal,
    save_area: SaveArea,
) -> None:
    try:
        pid, listener, child = launch.start(options.command, filter_one, signal_mask, front_pid)
        guardian.send("program", pid, fds=(listener,))
        # A group of its own, in the shell's session: a group whose members have no parent there is orphaned, and the
        # kernel does not let the terminal stop it. The front leaves as well before the program runs, which may be
        # stopped at once: what stops it must not stop us, or the shell waits for ever.
        with suppress(OSError):
            os.setpgid(0, 0)
        front.send("started", pid, os.getpid())
        front.receive()
        launch.go(pid, child)
    except launch.NotStarted as error:
        front.send("failed", error.status, str(error))
        return
    if sentence := launch.lost_by_command(options.command[0]):
        front.send("say", sentence)
    let_go_of_shell(front.fileno(), guardian.fileno(), listener, *options.descriptors)
    end = short_run.wait(pid, listener, front, journal)
    if end is not None:
        short_run.report(end, options, front)
        return
    # Imported now, while the program runs: nothing of it is needed before a first lock.
    from mlockwipe.supervisor.report import Report
    from mlockwipe.supervisor.supervisor import Supervisor

    report = Report(options.told, options.report_file)
    Supervisor(options, listener, front, guardian, journal, save_area, report, program=pid, front_pid=front_pid).run()


def _take_over(
    options: Options,
    left: "Entrusted",
    front: Channel,
    front_pid: int,
    journal: Journal,
    save_area: SaveArea,
    pages: int,
    end: tuple[int, int] | None,
) -> None:
    from mlockwipe.linux.wait import End
    from mlockwipe.supervisor.report import Report
    from mlockwipe.supervisor.supervisor import Supervisor

    report = Report(options.told, options.report_file)
    report.counts.wiped["death of the supervisor"] += pages
    front.send("started", left.program, os.getpid())
    supervisor = Supervisor(
        options, left.listener, front, None, journal, save_area, report, program=left.program, front_pid=front_pid
    )
    if end is not None:
        supervisor.program_has_ended(End(left.program, *end))
    supervisor.run()


def let_go_of_shell(*keep: int) -> None:
    """Give up what came from the shell: a pipe that the program closes must not stay open because of us."""
    kept = {*keep, proc_directory()}
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        if fd not in kept:
            os.dup2(null, fd)
    for name in names_in_proc("self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):  # the listing's own descriptor
                os.close(int(name))
    os.chdir("/")

# SPDX-License-Identifier: MIT
"""The front: what the shell started and looks at. It stands for the program, in signals, job control and status.

The program stays in the process group that the shell made, in the foreground if it was; the front moves into the
group of the guardian. So what the terminal or `kill -- -PGID` sends reaches the program once and directly, and what
reaches the front was meant for the program and is forwarded. When the program stops, the supervisor stops the front,
which is what the shell waits for.
"""

import os
import select

from mlockwipe.errors import Refused
from mlockwipe.linux import signalfd, signals
from mlockwipe.linux.read_file import proc_directory, read_file
from mlockwipe.memory.filters import filter_one
from mlockwipe.requirements import NO_LIBSECCOMP, check_machine, supervisor_above
from mlockwipe.supervisor import guardian, launch
from mlockwipe.supervisor.channel import Channel
from mlockwipe.supervisor.options import Options
from mlockwipe.suppress import suppress

__all__ = ["Options", "run"]

_FAILED = 125
_ENDING = frozenset((signals.SIGINT, signals.SIGTERM, signals.SIGHUP))
_CAUGHT = signals.ALL - {signals.SIGKILL, *signals.STOPPING}  # the supervisor stops us when the program stops


def run(options: Options) -> int:
    """Run a command under supervision: the exit status. Ends by the program's own signal if that ended it.

    Refused when it can't be done here; nothing has been started then.
    """
    check_machine()
    is_supervised = supervisor_above(os.getpid()) is not None
    if options.watch is not None and is_supervised:
        raise Refused("this runs under mlockwipe already, which sees what an audit would have to: audit from outside")
    if is_supervised:
        _say(options, "an outer mlockwipe run protects this command already")
        if options.report is not None:
            _say(options, f"the report {options.report} is not written, but the outer one's", always=True)
        status, sentence = launch.execute(options.command)
        _say(options, sentence, always=True)
        return status
    if (weakness := _killed_with_it()) is not None:
        _say(options, weakness)
    if options.report is not None:
        from mlockwipe.report_file import ReportFile

        options.files = (ReportFile(options.report, by_supervisor=True),)
    try:
        code = filter_one()
    except ImportError:
        raise Refused(NO_LIBSECCOMP) from None
    except OSError as error:
        raise Refused(f"no seccomp filter can be made ({error}): is the size of files limited (ulimit -f)?") from None
    proc_directory()  # before the program can mount anything over it
    mask = signals.change_mask(signals.SIG_BLOCK, _CAUGHT)
    ours, theirs = Channel.pair()
    try:
        pid = os.fork()
    except OSError as error:
        raise Refused(launch.why_no_process(error)) from None
    if pid == 0:
        ours.close()
        try:
            guardian.guard(options, code, mask, theirs)
        except Exception:
            guardian.tell_defect(theirs)
        os._exit(0)
    theirs.close()
    __import__("mlockwipe.messages")  # while they start the program; later it may not be there any more
    return _Front(options, ours, pid).stand()


class _Front:
    """The wait for the program."""

    def __init__(self, options: Options, channel: Channel, guard: int) -> None:
        self._options = options
        self._channel = channel
        self._guardian = guard
        self._program: int | None = None  # a pidfd: its pid may be another's one day
        self._signals = signalfd.open_signalfd(_CAUGHT)
        self._parent: int | None = None  # a pidfd of who has started us
        with suppress(OSError):  # it is gone, or outside of our PID namespace
            self._parent = os.pidfd_open(os.getppid())
        self._own_senders: set[int] = {guard}
        self._apart = False
        self._said: set[str] = set()
        self._group = os.getpgrp()
        self._last = False  # whether no descendant is left
        self._ended: int | None = None  # the status, while an audit goes on with what the program left running

    def stand(self) -> int:
        """Until the program has ended: its exit status."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        if self._parent is not None:
            poll.register(self._parent, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._parent:
                    poll.unregister(fd)
                    self._channel.send("orphaned")  # the program may have asked for a signal then (PR_SET_PDEATHSIG)
                    continue
                if fd == self._signals:
                    if self._ended is None:
                        self._forward()
                    elif any(info.signal in _ENDING for info in signalfd.read_signals(self._signals)):
                        return self._ended
                    continue
                message = self._channel.receive()
                if message is None and self._ended is not None:
                    self._reap_guardian()
                    return self._ended
                if message is None:
                    _say(self._options, "supervisor and guardian were both killed", always=True)
                    return _FAILED
                status = self._on_message(message[0], message[1])
                if status is not None:
                    return status

    def _on_message(self, word: str, rest: str) -> int | None:
        match word:
            case "started":
                pid, supervisor = map(int, rest.split())
                self._own_senders.add(supervisor)
                self._started(pid)
            case "ended":
                # no descendant is left: the report is final, and no zombie of ours stays for whoever reaps here
                self._reap_guardian()
                self._last = True
            case "exited":
                return self._after_end(int(rest))
            case "killed":
                return _die_by(int(rest)) if self._options.watch is None else self._after_end(128 + int(rest))
            case "say" if rest not in self._said:  # a guardian that takes over does not know what has been
                self._said.add(rest)
                for line in rest.splitlines() if rest.startswith(guardian.DEFECT) else [rest]:
                    _say(self._options, line)
            case "failed":
                status, _, sentence = rest.partition(" ")
                self._return_to_group()  # or `stty tostop` would stop us
                _say(self._options, sentence, always=True)
                return int(status)
        return None

    def _started(self, pid: int) -> None:
        if self._program is not None:
            return
        with suppress(ProcessLookupError):
            self._program = os.pidfd_open(pid)
        with suppress(OSError):  # it has ended
            os.setpgid(self._guardian, self._guardian)
        apart = False
        if os.getpid() != 1:
            # Process 1 would wait for ever at its end for the guardian's pid, its own group's number, to be free.
            with suppress(OSError):  # the leader of a session can't leave its group
                os.setpgid(0, self._guardian)
                apart = True
        self._forward()  # what the terminal sent before has reached the program too
        self._apart = apart
        self._channel.send("apart")
        pidfds = (fd for fd in (self._program, self._parent) if fd is not None)
        ours = (2, self._channel.fileno(), self._signals, *self._options.descriptors)
        guardian.let_go_of_shell(*ours, *pidfds)

    def _reap_guardian(self) -> None:
        with suppress(ChildProcessError):  # done before, if the supervisor was killed between its last words
            os.waitpid(self._guardian, 0)

    def _after_end(self, status: int) -> int | None:
        """The program has ended; an audit waits for what it has started."""
        if self._options.watch is None:
            return status
        self._ended = status
        if not self._last:
            self._return_to_group()  # where ^C arrives
            _say(self._options, "the command has ended; what it left running is audited until it ends, or until ^C")
        return None

    def _return_to_group(self) -> None:
        with suppress(OSError):
            os.setpgid(0, self._group)

    def _forward(self) -> None:
        for info in signalfd.read_signals(self._signals):
            if info.signal == signals.SIGCHLD or info.sender in self._own_senders:
                continue
            if info.code == signalfd.SI_KERNEL and not self._apart:
                continue  # from the terminal, which has sent it to the program too
            if self._program is not None:
                with suppress(ProcessLookupError, PermissionError):
                    signals.send_by_pidfd(self._program, info.signal)


def _die_by(number: int) -> int:
    """End as the program did, by the same signal; if that does not end us (process 1), the shell's status for it."""
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its core dump if it had to
        if number != signals.SIGKILL:
            signals.restore_default(number)
            signals.change_mask(signals.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
    return 128 + number


def _say(options: Options, text: str, *, always: bool = False) -> None:
    if always or options.verbosity >= 0:
        from mlockwipe.messages import tell

        tell(text)


def _killed_with_it() -> str | None:
    """A sentence for what a service manager or a container runtime has started, and may kill as a whole."""
    if os.getpid() == 1:
        return (
            "this is process 1 of a container: what kills the container kills mlockwipe with it, and leaves the "
            "locked memory; outside of it, `mlockwipe serve` survives that"
        )
    if "INVOCATION_ID" not in os.environ or not _is_systemd(os.getppid()):
        return None
    notify = "; Type=notify needs NotifyAccess=all" if "NOTIFY_SOCKET" in os.environ else ""
    return (
        "this is a service of systemd: what kills all of it kills mlockwipe with it, and leaves the locked memory; "
        f"`mlockwipe exec` in place of `run` survives that{notify}"
    )


def _is_systemd(pid: int) -> bool:
    try:
        return read_file(f"{pid}/comm") == b"systemd\n"
    except OSError:
        return False

# SPDX-License-Identifier: MIT
"""`mlockwipe serve`: a process of its own for every program or container that is handed over.

What arrives on a connection is read by that process, so that a message that is slow, huge or hostile concerns nobody
else. The first process keeps nothing but the socket, and counts.
"""

import os
import select
import signal
import socket
import stat
import struct
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe.linux import procfs, signalfd
from mlockwipe.messages import say
from mlockwipe.report_file import ReportFile
from mlockwipe.supervisor import handover, outside
from mlockwipe.supervisor.handover import BadMessage, Request
from mlockwipe.supervisor.report import Report
from mlockwipe.suppress import suppress

_MOST = 4096  # programs and containers at once
_MOST_OF_A_USER = 256  # other than root
_LISTEN_FDS_START = 3  # sd_listen_fds(3)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True)
class ServeOptions:
    """`socket`: where to listen; None for what the service manager has opened, or SOCKET. `reports`: a directory."""

    socket: str | None
    reports: str | None = None
    verbosity: int = 0


def serve(options: ServeOptions) -> int:
    """Until a signal asks to end: the exit status. Programs that were handed over stay covered, by other processes.

    Refused when there is no socket to be had.
    """
    _lower_oom_score()
    if options.reports is not None and not os.path.isdir(options.reports):
        raise Refused(f"{options.reports} is no directory for reports")
    given = _given_socket() if options.socket is None else None
    path = options.socket or handover.SOCKET
    if given is not None and not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        _Connection(given, options).supervise()
        return 0
    listening = given if given is not None else _listen(path)
    try:
        _Service(listening, options).run()
    finally:
        if given is None:
            _remove(path, listening)
    return 0


class _Service:
    """The socket, and the processes that it has made."""

    def __init__(self, listening: socket.socket, options: ServeOptions) -> None:
        self._listening = listening
        self._options = options
        self._users: dict[int, int] = {}  # of each process
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, *_ENDING])
        self._signals = signalfd.open_signalfd([signal.SIGCHLD, *_ENDING])

    def run(self) -> None:
        self._listening.setblocking(False)
        poll = select.poll()
        poll.register(self._listening, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd != self._signals:
                    self._accept()
                elif any(info.signal != signal.SIGCHLD for info in signalfd.read_signals(fd)):
                    return
            self._reap()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return  # it has gone; or no descriptor is left, and it waits
        with connection:
            _, user, _ = credentials(connection)
            refusal = self._why_not(user)
            if refusal is None:
                try:
                    pid = os.fork()
                except OSError as error:
                    refusal = f"no process can be made for it: {error.strerror}"
            if refusal is not None:
                say(f"a connection of user {user} is refused: {refusal}")
                connection.settimeout(0)
                handover.answer(connection, refusal)
                return
            if pid == 0:
                self._listening.close()
                os.close(self._signals)
                _in_child(connection, self._options)
            self._users[pid] = user

    def _why_not(self, user: int) -> str | None:
        if len(self._users) >= _MOST:
            return f"{_MOST} programs are supervised already"
        if user and Counter(self._users.values())[user] >= _MOST_OF_A_USER:
            return f"{_MOST_OF_A_USER} programs of user {user} are supervised already"
        return None

    def _reap(self) -> None:
        while self._users:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._users.pop(pid, None)


def _in_child(connection: socket.socket, options: ServeOptions) -> None:
    """Does not return."""
    status = 1
    try:
        os.setsid()  # what the terminal sends to the service is not for us
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _Connection(connection, options).supervise()
        status = 0
    except BaseException as error:
        say(f"this is a defect of mlockwipe, please report it: {error!r}")
    finally:
        os._exit(status)


class _Connection:
    """One program or container."""

    def __init__(self, connection: socket.socket, options: ServeOptions) -> None:
        self._connection = connection
        self._options = options

    def supervise(self) -> None:
        """Until the last task of the listener that it brings is gone."""
        peer, user, _ = credentials(self._connection)
        try:
            request = handover.receive(self._connection)
            if request.asks:
                request = replace(request, pid=peer)  # it can't know its pid here, if its PID namespace is another
        except BadMessage as bad:
            say(f"a connection of user {user} is refused: {bad}")
            handover.answer(self._connection, str(bad))
            return
        refusal = _why_not(request, peer, user)
        if refusal is not None:
            say(f"{request.name} is refused: {refusal}")
            handover.answer(self._connection, refusal)
            return
        try:
            filters = outside.filters_before(request.pid)
        except OSError:
            filters = 0
        report = Report([request.name], self._report_file(request))
        handover.answer(self._connection)
        self._connection.close()
        outside.guard(request, filters, report, self._options.verbosity)

    def _report_file(self, request: Request) -> ReportFile | None:
        if self._options.reports is None:
            return None
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in request.name)[:128]
        path = f"{os.path.abspath(self._options.reports)}/{name.lstrip('.')}-{os.getpid()}.json"
        try:
            return ReportFile(path, by_supervisor=True, creates=False)
        except Refused as refused:
            say(str(refused))
            return None


def _why_not(request: Request, peer: int, user: int) -> str | None:
    """Why a program may not be handed over by this peer, or can't be traced."""
    if request.pid != peer and user not in (0, os.geteuid()):
        return f"user {user} may hand over the process that connects, and not process {request.pid}"
    try:
        os.close(os.open(f"/proc/{request.pid}/mem", os.O_RDONLY))  # what ptrace asks for, and nobody is stopped
        tracer = procfs.status_field(request.pid, "TracerPid")
    except OSError as error:
        return f"process {request.pid} can't be traced: {error.strerror}; run the service as root"
    return None if tracer == "0" else f"process {request.pid} is traced by process {tracer}"


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of whoever connected, as the kernel knows them (unix(7), SO_PEERCRED)."""
    pid, user, group = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, user, group


# -- the socket ---------------------------------------------------------------------------------------------------


def _given_socket() -> socket.socket | None:
    """What the service manager has opened (sd_listen_fds(3)), if it has: a socket that listens, or one connection."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if os.environ.get("LISTEN_FDS") != "1":
        raise Refused("the service manager gave more than one socket")
    try:
        given = socket.socket(fileno=_LISTEN_FDS_START)
    except OSError as error:
        raise Refused(f"what the service manager gave is no socket: {error.strerror}") from None
    if (given.family, given.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise Refused("what the service manager gave is no stream socket of UNIX: set ListenStream= to a path")
    os.set_inheritable(_LISTEN_FDS_START, False)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return given


def _listen(path: str) -> socket.socket:
    """A socket at `path` that everybody may connect to. Refused when another service listens there.

    It gets its name when it listens, so that nobody finds it who would be turned away.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    nameless = f"{path}.{os.getpid()}"
    try:
        _check_free(path)
        listening.bind(nameless)
        try:
            os.chmod(nameless, 0o666)  # who may hand over what is decided by credentials
            listening.listen(128)
            os.rename(nameless, path)
        except OSError:
            os.unlink(nameless)
            raise
    except OSError as error:
        listening.close()
        raise Refused(f"no socket can be made at {path}: {error.strerror or error}") from None
    return listening


def _check_free(path: str) -> None:
    """Refused when there is something else at `path` than the socket of a service that is gone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Refused(f"{path} is there, and is no socket")
    except FileNotFoundError:
        return
    if _answers(path):
        raise Refused(f"a service listens at {path} already")


def _answers(path: str) -> bool:
    """Whether somebody listens at a socket. One that is too busy to take another connection does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass
        return True


def _remove(path: str, listening: socket.socket) -> None:
    """Remove our socket, but not that of a successor."""
    listening.close()
    if not _answers(path):
        with suppress(OSError):
            os.unlink(path)


def _lower_oom_score() -> None:
    """As low as allowed: what is killed for want of memory should be the program."""
    file = Path("/proc/self/oom_score_adj")
    with suppress(OSError):
        file.write_text("-1000")  # below what it once was needs CAP_SYS_RESOURCE
        return
    with suppress(OSError):
        if int(file.read_text()) > 0:
            file.write_text("0")

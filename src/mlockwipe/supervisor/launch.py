# SPDX-License-Identifier: MIT
"""Starting the program: a child that installs filter one and then becomes the command."""

import errno
import os

from mlockwipe.linux import prctl, ptrace, seccomp_filter, signals
from mlockwipe.linux.privileged_file import CAPABILITIES, SET_ID, privilege_of
from mlockwipe.requirements import (
    CAP_SYS_ADMIN,
    NO_PTRACE,
    has_capability,
    has_no_new_privileges,
    why_no_filter,
)
from mlockwipe.supervisor.channel import Channel

_LOST = {
    SET_ID: "{} is set-user-ID or set-group-ID and runs without that privilege here: seccomp demands no_new_privs of "
    "everybody but root",
    CAPABILITIES: "{} has file capabilities and runs without them here: seccomp demands no_new_privs of everybody "
    "but root. AmbientCapabilities= in a unit of systemd, or setpriv --ambient-caps, gives it what stays",
}


class NotStarted(Exception):
    """The command can't be run: the status for the shell, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def start(command: list[str], filter_one: bytes, signal_mask: set[int], front_pid: int) -> tuple[int, int, Channel]:
    """A child under filter one, which becomes the command at `go`: its pid, the listener, and the channel to it.

    `front_pid`: the process that it stands for. NotStarted when that can't be done. The child inherits all that this
    process has from the shell: descriptors, process group, working directory.
    """
    ours, childs = Channel.pair()
    try:
        pid = os.fork()
    except OSError as error:
        raise NotStarted(125, why_no_process(error)) from None
    if pid == 0:
        ours.close()
        _become(command, filter_one, signal_mask, front_pid, childs)
    childs.close()
    try:
        _probe_ptrace(pid)
        message = _tell_to_go(ours)
        if message is None:
            raise NotStarted(125, "the child that was to become the command died before it could")
    except NotStarted:
        _end(pid)
        raise
    (listener,) = message[2]
    return pid, listener, ours


def go(pid: int, channel: Channel) -> None:
    """Let the child become the command. NotStarted when it can't."""
    try:
        _tell_to_go(channel)
    except NotStarted:
        _end(pid)
        raise
    finally:
        channel.close()


def _tell_to_go(channel: Channel) -> tuple[str, str, list[int]] | None:
    channel.send("go")
    message = channel.receive()
    if message is not None and message[0] == "failed":
        status, _, sentence = message[1].partition(" ")
        raise NotStarted(int(status), sentence)
    return message


def _end(pid: int) -> None:
    os.kill(pid, signals.SIGKILL)
    os.waitpid(pid, 0)


def _probe_ptrace(pid: int) -> None:
    """Find out now, with nothing at stake, whether ptrace works here."""
    try:
        ptrace.seize(pid, 0)
        ptrace.interrupt(pid)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        ptrace.detach(pid)
    except PermissionError:
        raise NotStarted(125, NO_PTRACE) from None


def _become(command: list[str], filter_one: bytes, signal_mask: set[int], front_pid: int, channel: Channel) -> None:
    """In the child. Does not return."""
    try:
        channel.receive()
        try:
            if not has_capability(CAP_SYS_ADMIN):
                prctl.set_no_new_privileges()
            listener = seccomp_filter.install_with_listener(filter_one)
        except OSError as error:
            channel.send("failed", 125, why_no_filter(error))
            os._exit(125)
        channel.send("listener", fds=(listener,))
        os.close(listener)
        channel.receive()
        signals.change_mask(signals.SIG_SETMASK, signal_mask)
        _take_the_place_of(front_pid)
        status, sentence = execute(command)
        channel.send("failed", status, sentence)
    finally:
        os._exit(125)


def _take_the_place_of(front_pid: int) -> None:
    """Sockets and a watchdog are for the process that a service manager names, which is the front
    (sd_listen_fds(3), sd_watchdog_enabled(3))."""
    for name in ("LISTEN_PID", "WATCHDOG_PID"):
        if os.environ.get(name) == str(front_pid):
            os.environ[name] = str(os.getpid())


def execute(command: list[str]) -> tuple[int, str]:
    """Become a command, with the dispositions that it would have had; if that fails, the status and a sentence."""
    for number in (signals.SIGPIPE, signals.SIGXFSZ):  # the interpreter ignores them, and exec keeps that
        signals.restore_default(number)
    name = command[0]
    if not name:  # which Python does not even try
        return 127, "'': command not found"
    try:
        os.execvp(name, command)
    except OSError as error:
        if error.errno == errno.ENOEXEC:  # as execvp(3): a script without its #! line
            os.execv("/bin/sh", ["sh", _on_path(name), *command[1:]])
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            there = os.path.exists(_on_path(name))
            return 127, f"{name}: " + (
                "the interpreter that it names was not found" if there else "command not found"
            )
        return 126, f"{name}: {error.strerror}"
    raise AssertionError("exec returned")


def lost_privilege(path: str, name: str) -> str | None:
    """A sentence, if a program is to be without the privileges that its file gives. `name`: what to call it."""
    sentence = _LOST.get(privilege_of(path))
    if sentence is None or has_no_new_privileges():  # it would be without them anyway
        return None
    return sentence.format(name)


def lost_by_command(command: str) -> str | None:
    """The same of the command that was started."""
    path = _on_path(command)
    return None if has_capability(CAP_SYS_ADMIN) else lost_privilege(path, os.path.realpath(path))


def _on_path(name: str) -> str:
    if "/" not in name:
        for directory in os.get_exec_path():
            path = f"{directory or '.'}/{name}"
            if os.access(path, os.X_OK):
                return path
    return name


def why_no_process(error: OSError) -> str:
    return f"no more processes can be made here ({error.strerror}): raise `ulimit -u`, or pids.max of the cgroup"

# SPDX-License-Identifier: MIT
"""Handing a program over to `mlockwipe serve`: the message, and `mlockwipe exec`, which sends one about itself.

The message is that of the OCI runtime specification for `linux.seccomp.listenerPath` (config-linux.md, 1.0.2): the
container process state as JSON over a stream socket, and the listener of the filter beside it. Container runtimes
send it for programs that know nothing of us. `exec` sends it for the program that this process is about to become,
and puts what it asks for into `metadata`, which the specification leaves to the two ends. The service answers with
one line of JSON; runtimes do not wait for it.
"""

import array
import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

from mlockwipe.errors import Refused
from mlockwipe.linux import prctl, seccomp_filter
from mlockwipe.memory.filters import filter_one
from mlockwipe.messages import tell
from mlockwipe.requirements import CAP_SYS_ADMIN, NO_LIBSECCOMP, has_capability, why_no_filter, why_no_kernel
from mlockwipe.supervisor import launch

SOCKET = "/run/mlockwipe.sock"
VERSION = 1  # of `metadata` and of the answer
LARGEST = 1 << 20  # bytes of a message: annotations of a container may be long
PATIENCE = 10.0  # seconds for a message, and for the answer to it

_OCI_VERSION = "1.0.2"
_LISTENER = "seccompFd"
_LISTENER_IS = "anon_inode:seccomp notify"
_MOST_FDS = 16


class BadMessage(Exception):
    """What arrived is no container process state. The sentence says why."""


@dataclass(frozen=True)
class Request:
    """`listener`: the one descriptor that was kept. `pid`: in the PID namespace of the sender. `name`: of the
    container or the program. `asks`: whether the sender waits for an answer.
    """

    listener: int
    pid: int
    name: str
    asks: bool
    strict: bool
    unmap: bool
    verbose: bool


@dataclass(frozen=True)
class Wish:
    """What `exec` asks for."""

    strict: bool = False
    unmap: bool = True
    verbose: bool = False


def state(pid: int, name: str, wish: Wish) -> bytes:
    """The message of `exec`."""
    metadata = {"mlockwipe": VERSION, "strict": wish.strict, "unmap": wish.unmap, "verbose": wish.verbose}
    return json.dumps(
        {
            "ociVersion": _OCI_VERSION,
            "fds": [_LISTENER],
            "pid": pid,
            "metadata": json.dumps(metadata),
            "state": {"ociVersion": _OCI_VERSION, "id": name, "status": "creating", "pid": pid, "bundle": "/"},
        }
    ).encode()


# -- the service's end --------------------------------------------------------------------------------------------


def receive(connection: socket.socket) -> Request:
    """The request that a connection brings. BadMessage, with every descriptor closed, when it is none."""
    text = b""
    fds: list[int] = []
    deadline = time.monotonic() + PATIENCE
    try:
        while (parsed := _parsed(text)) is None:
            text += _more(connection, deadline, fds)
            if len(text) > LARGEST:
                raise BadMessage(f"its message is longer than {LARGEST} bytes")
        return _request(parsed, fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def answer(connection: socket.socket, refusal: str | None = None) -> None:
    """Accept a request, or say why not. A sender that does not wait is not missed."""
    message = {"mlockwipe": VERSION} | ({"accepted": True} if refusal is None else {"refused": refusal})
    try:
        connection.settimeout(PATIENCE)
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass


def _more(connection: socket.socket, deadline: float, fds: list[int]) -> bytes:
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        data, ancillary, flags, _ = connection.recvmsg(
            1 << 16, socket.CMSG_SPACE(_MOST_FDS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except TimeoutError:
        raise BadMessage(f"its message was not there after {PATIENCE:.0f} seconds") from None
    except OSError as error:
        raise BadMessage(f"its message can't be read: {error.strerror}") from None
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found = array.array("i")
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
            fds.extend(found)
    if flags & socket.MSG_CTRUNC or len(fds) > _MOST_FDS:
        raise BadMessage("it brings too many descriptors")
    if not data:
        raise BadMessage("it ended before its message did")
    return data


def _parsed(text: bytes) -> dict[str, Any] | None:
    """The object, once it is whole. A stream has no ends of messages, and what is not whole yet is no JSON."""
    if not text.rstrip().endswith(b"}"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        raise BadMessage("its message is no JSON object")
    return found


def _request(found: dict[str, Any], fds: list[int]) -> Request:
    names, pid = found.get("fds"), found.get("pid")
    if not isinstance(names, list) or _LISTENER not in names:
        raise BadMessage(f"its message names no {_LISTENER}")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
        raise BadMessage("its message names no process")
    wish = _wish(found.get("metadata"))
    at = names.index(_LISTENER)
    if at >= len(fds) or os.readlink(f"/proc/self/fd/{fds[at]}") != _LISTENER_IS:
        raise BadMessage("the descriptor that it brings is no listener of seccomp")
    listener = fds[at]
    for fd in fds:
        if fd != listener:
            os.close(fd)
    container = found.get("state")
    name = container.get("id") if isinstance(container, dict) else None
    return Request(
        listener=listener,
        pid=pid,
        name=name[:256] if isinstance(name, str) and name else f"process {pid}",
        asks=wish is not None,
        strict=wish is not None and wish.get("strict") is True,
        unmap=wish is None or wish.get("unmap") is not False,
        verbose=wish is not None and wish.get("verbose") is True,
    )


def _wish(metadata: object) -> dict[str, Any] | None:
    """What `metadata` asks for; None when it is not ours. BadMessage when it is of another version."""
    try:
        found = json.loads(metadata) if isinstance(metadata, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or "mlockwipe" not in found:
        return None
    if found["mlockwipe"] != VERSION:
        raise BadMessage(f"it speaks version {found['mlockwipe']!r} of the message, and this service {VERSION}")
    return found


# -- the end of `exec` --------------------------------------------------------------------------------------------


def execute(command: list[str], path: str | None, wish: Wish) -> int:
    """Become a command that the service at `path` supervises; if it can't be executed, the exit status.

    Refused when it can't be handed over; it has not been started then.
    """
    system = os.uname()
    if (lack := why_no_kernel(system.machine, system.release)) is not None:
        raise Refused(lack)
    try:
        code = filter_one()
    except ImportError:
        raise Refused(NO_LIBSECCOMP) from None
    if (lost := launch.lost_by_command(command[0])) is not None:
        tell(lost)
    with _connect(path or SOCKET) as connection:
        try:
            if not has_capability(CAP_SYS_ADMIN):
                prctl.set_no_new_privileges()
            listener = seccomp_filter.install_with_listener(code)
        except OSError as error:
            raise Refused(why_no_filter(error)) from None
        _hand_over(connection, listener, os.path.basename(command[0]), wish)
        os.close(listener)
    status, sentence = launch.execute(command)
    tell(sentence)
    return status


def _connect(path: str) -> socket.socket:
    """A connection to the service. Refused."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        why = {
            FileNotFoundError: "there is no such socket",
            ConnectionRefusedError: "nobody listens there",
        }.get(type(error), error.strerror or str(error))
        raise Refused(
            f"the service can't be reached at {path}: {why}; start `mlockwipe serve`, or use `mlockwipe run`"
        ) from None
    return connection


def _hand_over(connection: socket.socket, listener: int, name: str, wish: Wish) -> None:
    """Have the service supervise this process, and what it will execute, from now on. Refused."""
    try:
        socket.send_fds(connection, [state(os.getpid(), name, wish)], [listener])
        said = b""
        while not said.endswith(b"\n") and (more := connection.recv(4096)):
            said += more
    except TimeoutError:
        raise Refused(f"the service did not answer in {PATIENCE:.0f} seconds") from None
    except OSError as error:
        raise Refused(f"the service has gone: {error.strerror}") from None
    try:
        found = json.loads(said)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "mlockwipe" not in found:
        raise Refused("the service hung up without an answer: its log says why")
    if found.get("accepted") is not True:
        raise Refused(f"the service refuses: {found.get('refused')}")

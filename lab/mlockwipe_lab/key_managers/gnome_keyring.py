# SPDX-License-Identifier: MIT
"""gnome-keyring-daemon with an unlocked keyring: secrets stand in its secure memory as long as it is unlocked."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlockwipe_lab.key_managers import KeyManager, Needle, Operation, Wrap
from mlockwipe_lab.key_managers.material import environment, need, passphrase, run
from mlockwipe_lab.key_managers.operations import Service
from mlockwipe_lab.key_managers.processes import wait_until

_PACKAGE = "gnome-keyring"
_DAEMON = "gnome-keyring-daemon"
_ATTRIBUTE = ("service", "mlockwipe")


def _session(directory: Path, wrap: Wrap) -> tuple[Service, Service, dict[str, str]]:
    """The daemon, unlocked, and a bus of its own."""
    runtime, data = directory / "run", directory / "data"
    runtime.mkdir(mode=0o700, exist_ok=True)
    socket = directory / "bus"
    socket.unlink(missing_ok=True)
    address = f"unix:path={socket}"
    env = environment(
        HOME=str(directory),
        XDG_RUNTIME_DIR=str(runtime),
        XDG_DATA_HOME=str(data),
        DBUS_SESSION_BUS_ADDRESS=address,
    )
    argv = [need("dbus-daemon", "dbus-daemon"), "--session", "--nofork", "--nopidfile", f"--address={address}"]
    bus = Service(argv, (), env)
    bus.start()
    wait_until(socket.exists, "dbus-daemon makes no socket")
    daemon = Service(
        wrap([need(_DAEMON, _PACKAGE), "--unlock", "--components=secrets", "--foreground"]), (_DAEMON[:15],), env
    )
    daemon.start(stdin=subprocess.PIPE)
    daemon.feed((directory / "passphrase").read_bytes())
    daemon.end_of_input()
    wait_until((runtime / "keyring" / "control").exists, f"{_DAEMON} does not come up")
    return daemon, bus, env


def _tool(env: dict[str, str], verb: str, *options: str, input: bytes = b"") -> bytes:
    return run([need("secret-tool", "libsecret-tools"), verb, *options, *_ATTRIBUTE], input=input, env=env)


def _prepare(directory: Path) -> list[Needle]:
    passphrase(directory)
    secret = secrets.token_urlsafe(24)
    daemon, bus, env = _session(directory, list)
    try:
        _tool(env, "store", "--label=mlockwipe", input=secret.encode())
        assert _tool(env, "lookup") == secret.encode()
    finally:
        daemon.end()
        bus.end()
    for socket in [directory / "bus", *(directory / "run").rglob("*")]:
        if socket.is_socket():
            socket.unlink()
    assert secret.encode() not in (directory / "data" / "keyrings" / "login.keyring").read_bytes()
    return [Needle("item", secret.encode())]


@contextmanager
def _operate(directory: Path, wrap: Wrap) -> Iterator[Operation]:
    daemon, _, _ = _session(directory, wrap)
    yield daemon


GNOME_KEYRING = KeyManager(
    "gnome-keyring",
    "gnome-keyring-daemon killed with an unlocked keyring: the secret of an item",
    {_DAEMON: _PACKAGE, "secret-tool": "libsecret-tools", "dbus-daemon": "dbus-daemon"},
    _prepare,
    _operate,
)

# SPDX-License-Identifier: MIT
"""A real systemd, as process 1 of a container of systemd-nspawn, over this machine's files."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.running import TIMEOUT, marked

PROJECT = Path(__file__).parents[2]
SHARED = "/mlockwipe-test"  # in the container

# In a mount namespace of its own, so that nothing stays mounted whatever happens. What is written in the container is
# in memory.
_BOOT = """
set -eu
mount -t tmpfs tmpfs "$1/over"
mkdir "$1/over/upper" "$1/over/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/over/upper,workdir=$1/over/work" "$1/root"
rm -f "$1/root/etc/machine-id" "$1/root/etc/fstab"
: > "$1/root/etc/machine-id"
rm -rf "$1/root/etc/systemd/system"
cp -r "$1/units" "$1/root/etc/systemd/system"
mkdir "$1/root/$2"
chmod 711 "$1/root/root"  # where the interpreter may be
directory=$1 shared=$2
shift 2
exec systemd-nspawn --quiet --register=no --keep-unit --capability=all --directory="$directory/root" \\
    --bind="$directory/shared:$shared" "$@" --boot --console=pipe systemd.unit=agent.target
"""
_TARGET = """
[Unit]
Requires=basic.target agent.service
After=basic.target
"""
_AGENT = f"""
[Unit]
After=basic.target
[Service]
WorkingDirectory={SHARED}
ExecStart=/bin/sh -c 'exec 3<>orders; while read -r order <&3; do sh -c "$order" >answers 2>&1; done'
"""


class Systemd:
    """`shared`: a directory that is SHARED in the container."""

    def __init__(self, shared: Path, process: "subprocess.Popen[bytes]") -> None:
        self.shared = shared
        self._process = process

    def run(self, order: str) -> str:
        """Have a line executed by a shell in the container: what it says."""
        with (self.shared / "orders").open("w") as orders:
            orders.write(order + "\n")
        fd = os.open(self.shared / "answers", os.O_RDONLY | os.O_NONBLOCK)
        try:
            return self._read(fd)
        finally:
            os.close(fd)

    def _read(self, fd: int) -> str:
        said = b""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + TIMEOUT
        begun = False
        while True:
            assert self._process.poll() is None, "the container has ended"
            assert time.monotonic() < deadline, said
            for _, events in poll.poll(100):
                if events & select.POLLIN:
                    said += os.read(fd, 1 << 16)
                    begun = True
                elif begun or events & select.POLLHUP:
                    return said.decode()

    def properties(self, unit: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.run(f"systemctl show {unit}").splitlines() if "=" in line)


@contextmanager
def systemd(units: Mapping[str, str]) -> Iterator[Systemd]:
    """`units`: the text of each unit file by name."""
    with tempfile.TemporaryDirectory(prefix="mlockwipe-systemd-", dir="/var/tmp") as name, marked() as processes:
        directory = Path(name)
        for part in ("over", "root", "units", "shared"):
            (directory / part).mkdir()
        (directory / "shared").chmod(0o777)
        for unit, text in {**units, "agent.target": _TARGET, "agent.service": _AGENT}.items():
            (directory / "units" / unit).write_text(text)
        for fifo in ("orders", "answers"):
            os.mkfifo(directory / "shared" / fifo)
        needed = {PROJECT, Path(sys.prefix), Path(sys.base_prefix)}
        binds = [f"--bind-ro={path}" for path in sorted(needed) if path != Path("/usr")]
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _BOOT, "sh", name, SHARED, *binds],
            stdin=subprocess.DEVNULL,
            stdout=(directory / "console").open("wb"),
            stderr=subprocess.STDOUT,
            env=processes.environment,
        )
        try:
            found = Systemd(directory / "shared", process)
            yield found
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def default_environment() -> str:
    """For the manager's configuration: where Python finds mlockwipe, if it is told."""
    path = os.environ.get("PYTHONPATH", "")
    return f"Environment=PYTHONPATH={json.dumps(path)}\n" if path else ""

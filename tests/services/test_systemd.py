# SPDX-License-Identifier: MIT
"""Services under a real systemd, with the units that are shipped, ended by force in each way that it has."""

import fcntl
import os
import shutil
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlockwipe.contract.witness import Pages, Witness
from mlockwipe.linux.arch import PAGE_SIZE
from tests.support.c_programs import compiled
from tests.support.running import MLOCKWIPE, TIMEOUT
from tests.support.systemd import PROJECT, SHARED, Systemd, default_environment, systemd

pytestmark = [
    pytest.mark.needs_gcc("gcc libc6-dev"),
    pytest.mark.needs_program("systemd-nspawn", "systemd-container"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to boot a container"),
]

PAGES = 8
HARDENED = """
Type=notify
NotifyAccess=main
WatchdogSec=2
User=nobody
NoNewPrivileges=yes
SystemCallFilter=@system-service seccomp
ProtectProc=invisible
ProtectSystem=strict
LimitMEMLOCK=64K
"""


def service(before: str, more: str) -> str:
    return f"""
[Service]
ExecStart={before} {SHARED}/service {SHARED}/%p stubborn
TimeoutStopSec=1
{default_environment()}{more}
"""


KINDS = {
    "simple": "Type=simple",
    "hardened": HARDENED,
    "dynamic": "Type=notify\nDynamicUser=yes",
    "mixed": "KillMode=mixed",
    "process": "KillMode=process",
}


@pytest.fixture(scope="module")
def booted() -> Iterator[Systemd]:
    units = {
        name: (PROJECT / "packaging/systemd" / name)
        .read_text()
        .replace("/usr/bin/mlockwipe", MLOCKWIPE)
        .replace("[Service]", f"[Service]\n{default_environment()}")
        for name in ("mlockwipe.socket", "mlockwipe@.service")
    }
    for kind, more in KINDS.items():
        units[f"{kind}.service"] = service(f"{MLOCKWIPE} exec --", more)
        units[f"bare-{kind}.service"] = service("", more)
    units["inside.service"] = service(f"{MLOCKWIPE} run --", "Type=notify\nNotifyAccess=all\nWatchdogSec=2")
    with systemd(units) as found:
        shutil.copy(compiled("service"), found.shared)
        found.run("systemctl start mlockwipe.socket")
        yield found


@contextmanager
def started(booted: Systemd, unit: str) -> Iterator[Witness]:
    """A service that has shown its pages."""
    fifo = booted.shared / unit
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    read_end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        said = booted.run(f"systemctl start {unit}")
        assert said == "", said + booted.run(f"journalctl -n 20 --no-pager -u {unit} -u 'mlockwipe@*'")
        while shown(read_end) < PAGES * PAGE_SIZE:
            assert booted.properties(unit)["ActiveState"] == "active", booted.run(f"journalctl -n 20 -u {unit}")
            time.sleep(0.05)
        yield Witness(read_end, -1)
    finally:
        os.close(read_end)
        booted.run(f"systemctl kill -s KILL {unit}; systemctl reset-failed {unit}")
        fifo.unlink()


def shown(read_end: int) -> int:
    """How many bytes are in a pipe."""
    return int.from_bytes(fcntl.ioctl(read_end, termios.FIONREAD, bytes(4)), sys.byteorder)


def await_pages(seen: Witness, booted: Systemd, unit: str) -> Pages:
    deadline = time.monotonic() + TIMEOUT
    while booted.properties(unit)["ActiveState"] not in ("failed", "inactive"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while "mlockwipe@" in booted.run("systemctl list-units --no-legend 'mlockwipe@*'"):
        assert time.monotonic() < deadline, booted.run("systemctl list-units; journalctl -n 50 --no-pager")
        time.sleep(0.1)
    seen.look()
    return seen.pages


ENDS = {
    "kill": "systemctl kill -s KILL {}",
    "stop": "systemctl stop {}",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_page_is_left_of_a_service(booted: Systemd, kind: str, end: str) -> None:
    with started(booted, kind) as seen:
        properties = booted.properties(kind)
        assert properties["ActiveState"] == "active"
        name = booted.run(f"cat /proc/{properties['MainPID']}/comm").strip()
        assert name == "service"
        if "Watchdog" in KINDS[kind]:
            time.sleep(3)  # longer than the watchdog waits
            assert booted.properties(kind)["ActiveState"] == "active"
        booted.run(ENDS[end].format(kind))
        pages = await_pages(seen, booted, kind)
        assert (pages.total, pages.zero) == (PAGES, PAGES)


@pytest.mark.parametrize("end", ENDS)
def test_without_mlockwipe_all_are_left(booted: Systemd, end: str) -> None:
    with started(booted, "bare-simple") as seen:
        booted.run(ENDS[end].format("bare-simple"))
        pages = await_pages(seen, booted, "bare-simple")
        assert (pages.total, pages.dirty) == (PAGES, PAGES)


def test_run_passes_the_watchdog_on_and_says_what_it_does_not_survive(booted: Systemd) -> None:
    with started(booted, "inside"):
        time.sleep(3)  # longer than the watchdog waits
        assert booted.properties("inside")["ActiveState"] == "active"
        assert "`mlockwipe exec` in place of `run` survives that" in booted.run("journalctl --no-pager -u inside")

# SPDX-License-Identifier: MIT
"""Marks for what a test needs of the machine: missing, it is a skip with its name for a user and a failure in CI."""

import ctypes
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from mlockwipe.kernel.packages import cache, candidate
from mlockwipe.linux import wait


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in the background with these ignored, nohup with the last, and so would be all that a
    # test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.addinivalue_line(
        "markers", "needs_program(name, package): the test runs this program of that Debian package"
    )
    config.addinivalue_line(
        "markers", "needs_library(soname, package): the test loads this library of that Debian package"
    )
    config.addinivalue_line("markers", "needs_gcc(packages, *flags): the test compiles a C program with these flags")
    config.addinivalue_line("markers", "needs_debians_linux(series): the test fetches packages of it, once, by apt")
    config.addinivalue_line(
        "markers", "needs_pid_namespace: the test runs a program as process 1 of one, by unshare(1)"
    )


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """What is tested in this process may block signals; all that later tests start would inherit that."""
    before, bounded = signal.pthread_sigmask(signal.SIG_BLOCK, []), wait._Waits.are_bounded
    yield
    wait._Waits.are_bounded = bounded
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs_program"):
        need(mark.args[0], mark.args[1], is_there=shutil.which(mark.args[0]) is not None)
    for mark in item.iter_markers("needs_library"):
        need(mark.args[0], mark.args[1], is_there=_loads(mark.args[0]))
    for mark in item.iter_markers("needs_gcc"):
        packages, *flags = mark.args
        need(" ".join(("gcc", *flags)), packages, is_there=_compiles(*flags))
    for mark in item.iter_markers("needs_debians_linux"):
        (series,) = mark.args
        if candidate(f"linux-source-{series}") is None and not any(cache().glob(f"linux-*-{series}*")):
            lack(f"apt does not know Debian's Linux {series}: apt-get update, on Debian 12")
    if item.get_closest_marker("needs_pid_namespace"):
        need("unshare", "util-linux", is_there=shutil.which("unshare") is not None)
        if why := _why_no_pid_namespace():
            lack(f"no PID namespace can be made here: {why}")


def need(name: str, package: str, *, is_there: bool) -> None:
    """Skip the running test, or fail it where CI=true, unless `name` is there."""
    if not is_there:
        lack(f"{name} is not installed: apt-get install {package}")


def lack(reason: str) -> None:
    """Skip the running test, or fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


@functools.cache
def _compiles(*flags: str) -> bool:
    """Whether a C program can be made, for which gcc without the C library's headers is not enough."""
    if shutil.which("gcc") is None:
        return False
    program = "#include <stdio.h>\nint main(void) { return 0; }\n"
    done = subprocess.run(
        ["gcc", *flags, "-x", "c", "-o", "/dev/null", "-"], input=program, capture_output=True, text=True
    )
    return done.returncode == 0


@functools.cache
def _why_no_pid_namespace() -> str:
    """What unshare(1) says where it makes none: for an ordinary user, in many containers, in a plain chroot."""
    done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True)
    return done.stderr.strip()

# SPDX-License-Identifier: MIT
"""Marks for tests of real programs: missing, they are skipped by name for a user and a failure in CI."""

import ctypes
import os
import shutil
import signal

import pytest


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


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs_program"):
        need(mark.args[0], mark.args[1], is_there=shutil.which(mark.args[0]) is not None)
    for mark in item.iter_markers("needs_library"):
        need(mark.args[0], mark.args[1], is_there=_loads(mark.args[0]))


def need(name: str, package: str, *, is_there: bool) -> None:
    """Skip the running test, or fail it where CI=true, unless `name` is there."""
    if is_there:
        return
    reason = f"{name} is not installed: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True

# SPDX-License-Identifier: MIT
"""Both kinds of memory, and programs of their own for what a process does only once."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from mlockwipe.linux import mm
from mlockwipe.locked.pool import POOL

Run = Callable[..., "subprocess.CompletedProcess[str]"]

WITHOUT_MEMFD_SECRET = """
import errno
from mlockwipe.linux import mm
def refuse(flags=0):
    raise OSError(errno.ENOSYS, "no memfd_secret")
mm.memfd_secret = refuse
"""


def has_memfd_secret() -> bool:
    try:
        os.close(mm.memfd_secret(os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _need_memfd_secret() -> None:
    if not has_memfd_secret():
        pytest.skip("this kernel has no memfd_secret, or was booted with secretmem.enable=0")


def refuse_memfd_secret(flags: int = 0) -> NoReturn:
    raise OSError(errno.ENOSYS, "no memfd_secret")


@pytest.fixture
def secret() -> Iterator[None]:
    """Memory of memfd_secret."""
    _need_memfd_secret()
    POOL.lose_in_child()  # begin anew: what other tests left is not of the kind
    yield
    POOL.lose_in_child()


@pytest.fixture
def mlocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Private memory that is mlocked, as where the kernel has no memfd_secret."""
    monkeypatch.setattr(mm, "memfd_secret", refuse_memfd_secret)
    POOL.lose_in_child()
    yield
    POOL.lose_in_child()


@pytest.fixture(params=["secret", "mlocked"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of memory in turn."""
    request.getfixturevalue(request.param)
    return str(request.param)


@pytest.fixture(params=["secret", "mlocked"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a Python program with each kind of memory in turn, and returns how it ended."""
    if request.param == "secret":
        _need_memfd_secret()
    return _runner(request.param)


@pytest.fixture
def run_mlocked() -> Run:
    return _runner("mlocked")


def _runner(kind: str) -> Run:
    setup = WITHOUT_MEMFD_SECRET if kind == "mlocked" else ""

    def run(program: str, *arguments: object, pass_fds: tuple[int, ...] = ()) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", setup + program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            pass_fds=pass_fds,
        )

    return run

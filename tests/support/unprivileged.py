# SPDX-License-Identifier: MIT
"""Running things as an unprivileged user: the user nobody when the tests are run by root."""

import functools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mlockwipe


@functools.cache
def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def _as_nobody() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    user = nobody()
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--inh-caps=-all", "--")


AS_NOBODY = _as_nobody()

needs_nobody = pytest.mark.needs_program("setpriv", "util-linux")


@functools.cache
def python_for_nobody() -> str:
    """An interpreter that the user may execute: that of the tests may lie in a home that is closed to him."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")):
        if python is None:
            continue
        new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            # Through a shell: setpriv itself still has root's capabilities when it executes a program.
            done = subprocess.run(
                [*AS_NOBODY, "sh", "-c", 'exec "$0" "$@"', python, "-c", new_enough], capture_output=True, cwd="/"
            )
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("no Python that an unprivileged user may execute: apt-get install python3")


@contextmanager
def mlockwipe_for_nobody() -> Iterator[tuple[str, ...]]:
    """The command `mlockwipe` for that user: a copy that he may read."""
    python = python_for_nobody()
    with tempfile.TemporaryDirectory(prefix="mlockwipe-copy-") as directory:
        shutil.copytree(
            Path(mlockwipe.__file__).parent,
            Path(directory, "mlockwipe"),
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for path in (Path(directory), *Path(directory).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        start = f"import sys; sys.path.insert(0, {directory!r}); from mlockwipe.cli import main; sys.exit(main())"
        yield (python, "-P", "-c", start)

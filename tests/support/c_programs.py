# SPDX-License-Identifier: MIT
"""The C programs in tests/programs, compiled once a run of the tests."""

import atexit
import functools
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "programs"

needs_gcc = pytest.mark.needs_gcc("gcc libc6-dev")


@functools.cache
def _directory() -> Path:
    directory = tempfile.TemporaryDirectory(prefix="mlockwipe-programs-")
    atexit.register(directory.cleanup)
    path = Path(directory.name)
    path.chmod(0o755)  # programs are run as other users too
    return path


@functools.cache
def compiled(name: str, *flags: str) -> str:
    """The path of the program made from tests/programs/NAME.c. RuntimeError with what the compiler said."""
    program = _directory() / "-".join((name, *(flag.strip("-") for flag in flags)))
    done = subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *flags, "-o", program, SOURCES / f"{name}.c"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"gcc failed on {name}.c:\n{done.stderr}")
    return str(program)

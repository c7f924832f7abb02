# SPDX-License-Identifier: MIT
"""The workload programs, compiled."""

import shutil
import subprocess
from pathlib import Path

_SOURCES = Path(__file__).parent
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


class NoCompiler(Exception):
    """There is no C compiler here."""


def build(directory: Path) -> None:
    """Compile every program into `directory`, each under the name of its source."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompiler("the workloads are C programs and there is no compiler: apt-get install gcc libc6-dev")
    for source in sorted(_SOURCES.glob("*.c")):
        subprocess.run([compiler, *_FLAGS, "-o", directory / source.stem, source], check=True)

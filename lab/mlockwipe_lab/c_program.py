# SPDX-License-Identifier: MIT
"""C programs of the lab, compiled."""

import shutil
import subprocess
from pathlib import Path

from mlockwipe.errors import Refused

_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


def compile_c(source: Path, program: Path, *flags: str) -> Path:
    """Make `program` of one file. Raises Refused."""
    gcc = shutil.which("gcc")
    if gcc is None:
        raise Refused("what measures is a C program, and there is no gcc: apt-get install gcc libc6-dev")
    ran = subprocess.run([gcc, *_FLAGS, *flags, "-o", program, source], capture_output=True, text=True)
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if "error" in line or "cannot find" in line]
        raise Refused(f"{source.name} can't be compiled: {(errors or ['no reason given'])[0]}")
    return program

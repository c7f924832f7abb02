# SPDX-License-Identifier: MIT
"""A program that mounts something over /proc, or unmounts it, in the mount namespace that its supervisor is in."""

import os
import subprocess
import sys

import pytest

from tests.support.attaching import PART, attaching, obedient
from tests.support.c_programs import needs_gcc
from tests.support.running import run_bare, run_supervised

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.needs_program("unshare", "util-linux"),
]

UNSHARE = ("unshare", "--mount", "--propagation", "private")
OVER = "mount -t tmpfs none /proc"
# `after`: the mounting comes after the first lock. Then a fork, an exec and a release.
PROGRAM = """
import ctypes, os, signal, subprocess, sys
from mlockwipe.linux import mm
when, change = sys.argv[1:]
secret = mm.mmap(0, 8192, 3, 0x22)
for step in ("change", "lock") if when == "before" else ("lock", "change"):
    if step == "lock":
        mm.mlock(secret, 8192)
    elif subprocess.call(change.split()):
        sys.exit(50)
ctypes.memset(secret, 1, 8192)
pid = os.fork()
if pid == 0:
    ctypes.memset(secret, 2, 4096)
    os.execv("/bin/sh", ["sh", "-c", "exit 7"])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), ctypes.string_at(secret, 2))
mm.munmap(secret, 4096)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", [OVER, "umount /proc", "umount --lazy /proc"])
def test_run_goes_on(when: str, change: str) -> None:
    command = [sys.executable, "-c", PROGRAM, when, change]
    inside = (*UNSHARE, sys.executable, "-P", "-m", "mlockwipe")
    bare = run_bare([*UNSHARE, *command])
    outcome = run_supervised(command, mlockwipe=inside)
    if bare.status == 50:
        pytest.skip(f"{change} does not work here")
    assert outcome.result == bare.result
    assert outcome.err == ""
    assert outcome.report["pages_wiped"] == {"exec": 2, "munmap": 1, "SIGKILL": 1}


@needs_gcc
def test_attach_goes_on() -> None:
    with obedient(1, UNSHARE) as (program, _):
        inside = ("nsenter", "--mount", f"--target={program.pid}", sys.executable, "-P", "-m", "mlockwipe")
        with attaching(str(program.pid), prefix=inside) as attachment:
            attachment.await_covered(program.pid)
            subprocess.run(["nsenter", "--mount", f"--target={program.pid}", *OVER.split()], check=True)
            assert program.tell("fs") == ["had a child", "ran it"]
            program.kill()
            program.end()
            pages = program.look()
            assert (pages.total, pages.dirty) == (2 * PART, 0)
            assert attachment.end() == 0

# SPDX-License-Identifier: MIT
"""Programs that get the orphans among their descendants, and wait until no child is left."""

import sys

import pytest

from tests.support.attaching import UNSHARE
from tests.support.python_lock import LOCK
from tests.support.running import run_bare, run_supervised

SUBREAPER = "libc.prctl(36, 1, 0, 0, 0)\n"
WAITS = """
found = []
if os.fork() == 0:
    os._exit(3)
try:
    while True:
        pid, status = os.wait()
        if status != 9:  # a helper task of the child's
            found.append(status)
except ChildProcessError:
    print(found)
"""


@pytest.mark.parametrize("before", [SUBREAPER + "kept = lock()\n", "kept = lock()\n" + SUBREAPER, SUBREAPER])
def test_a_subreapers_wait_ends(before: str) -> None:
    command = [sys.executable, "-c", LOCK + before + WAITS]
    bare = run_bare(command)
    assert bare.result == (0, "[768]\n")
    assert run_supervised(command).result == bare.result


def test_it_is_a_subreaper_still() -> None:
    orphan = """
if os.fork() == 0:
    if os.fork() == 0:
        import time
        while os.getppid() != int(parent):
            time.sleep(0.01)
        os._exit(5)
    os._exit(0)
found = []
while len(found) < 2:
    status = os.wait()[1]
    if status != 9:  # a helper task of the child's
        found.append(status)
print(sorted(found))
"""
    command = [sys.executable, "-c", LOCK + SUBREAPER + "kept = lock()\nparent = os.getpid()\n" + orphan]
    assert run_supervised(command).result == run_bare(command).result == (0, "[0, 1280]\n")


def test_it_is_none_any_more_when_it_has_said_so() -> None:
    asks = "answer = ctypes.c_int()\nlibc.prctl(37, ctypes.byref(answer), 0, 0, 0)\nprint(answer.value)\n"
    for on in (0, 1):
        command = [sys.executable, "-c", LOCK + SUBREAPER + f"libc.prctl(36, {on}, 0, 0, 0)\nkept = lock()\n" + asks]
        assert run_supervised(command).result == run_bare(command).result == (0, f"{on}\n")


@pytest.mark.needs_pid_namespace
def test_the_wait_of_process_1_of_a_pid_namespace_ends() -> None:
    command = [*UNSHARE, sys.executable, "-c", LOCK + "kept = lock()\n" + WAITS]
    bare = run_bare(command)
    assert bare.result == (0, "[768]\n")
    assert run_supervised(command).result == bare.result

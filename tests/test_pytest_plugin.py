# SPDX-License-Identifier: MIT
"""`pytest --mlockwipe-audit` on a package of three tests, one of which leaves a secret."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.python_lock import LOCK
from tests.support.running import TIMEOUT, marked

pytestmark = pytest.mark.needs_library("libdw.so.1", "libdw1")

TESTS = (
    LOCK
    + """\
def test_clears():
    room, address = lock()
    room[:3] = b"abc"
    room[:3] = bytes(3)
    libc.munlock(address, 4096)
def test_forgets():
    room, address = lock()
    room[:3] = b"abc"
    libc.munlock(address, 4096)
def test_child_forgets():
    if os.fork() == 0:
        room, address = lock()
        room[:3] = b"abc"
        os._exit(0)
    os.wait()
def test_other(tmp_path):
    print("it has", "output")
def test_keeps():
    global kept
    kept = lock()
    kept[0][:3] = b"abc"
"""
)


def run(place: Path, *options: str) -> tuple[int, str]:
    (place / "test_wallet.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", *options]
    with marked() as processes:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, timeout=TIMEOUT, env=processes.environment
        )
    return done.returncode, done.stdout + done.stderr


def test_the_tests_that_leave_a_secret_fail_and_no_others(tmp_path: Path) -> None:
    status, out = run(tmp_path, "--mlockwipe-audit", "--deselect", "test_wallet.py::test_keeps")
    assert status == 1
    assert "2 failed, 2 passed" in out
    assert "FAILED test_wallet.py::test_forgets" in out
    assert "FAILED test_wallet.py::test_child_forgets" in out
    assert "unlocked-uncleared (munlock): 3 of 4096 bytes are not zero" in out
    assert "munlock test_forgets (test_wallet.py:17)" in out


def test_a_run_that_leaves_nothing_passes(tmp_path: Path) -> None:
    status, out = run(tmp_path, "--mlockwipe-audit", "-k", "clears or other")
    assert status == 0
    assert "2 passed" in out
    assert "nothing was left uncleared" in out


def test_what_is_found_at_the_end_fails_the_run(tmp_path: Path) -> None:
    status, out = run(tmp_path, "--mlockwipe-audit", "-k", "keeps")
    assert status == 1
    assert "1 passed" in out
    assert "released-uncleared" in out
    assert "test_keeps (test_wallet.py" in out


def test_a_test_that_fails_anyway_has_its_findings_in_its_report(tmp_path: Path) -> None:
    (tmp_path / "test_more.py").write_text(
        TESTS.replace("def test_", "def not_")
        + "def test_both():\n    not_forgets()\n    assert False\ndef test_next(): pass\n"
    )
    status, out = run(tmp_path, "--mlockwipe-audit", "test_more.py")
    assert status == 1
    assert "1 failed, 1 passed" in out
    assert "Captured mlockwipe audit call" in out
    assert "unlocked-uncleared (munlock): 3 of 4096 bytes are not zero" in out


def test_without_the_option_nothing_is_audited(tmp_path: Path) -> None:
    status, out = run(tmp_path)
    assert status == 0
    assert "5 passed" in out
    assert "audit" not in out

# SPDX-License-Identifier: MIT
"""CPython's own tests of mmap, os, signals with threads and subprocess, in an interpreter that is locked.

All that each module tests is run but for LargeMmapTests, which map files of up to 6 GiB: locked, all of each would be
resident. The longest, test_subprocess, takes a quarter of a minute. The bare run is made beside the supervised one:
both mostly wait.
"""

import functools
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mlockwipe
from tests.conftest import need
from tests.support.c_programs import SOURCES
from tests.support.running import Outcome, run_bare, run_supervised

pytestmark = pytest.mark.usefixtures("room_to_lock")

DEBIAN = "/usr/bin/python3"  # whose tests are in a package of their own
MODULES = ("test_mmap", "test_posix", "test_threadsignals", "test_subprocess")
_HAS_TESTS = "import sys, test.libregrtest, test.test_mmap; sys.exit(sys.version_info < (3, 11))"


@functools.cache
def _interpreter() -> str | None:
    """One that has the tests of CPython: ours, or that of Debian."""
    for python in (sys.executable, DEBIAN):
        if (
            os.path.exists(python)
            and subprocess.run([python, "-c", _HAS_TESTS], stderr=subprocess.DEVNULL).returncode == 0
        ):
            return python
    return None


@pytest.mark.parametrize("module", MODULES)
def test_it_passes_its_own_tests_locked_as_bare(module: str, tmp_path: Path) -> None:
    python = _interpreter()
    package = (
        f"lib{Path(DEBIAN).resolve().name}-testsuite"  # libpython3.11-testsuite: there is none without a version
    )
    need("the test package of CPython", package, is_there=python is not None)
    assert python is not None
    command = [python, str(SOURCES / "run_locked.py"), "-i", "*LargeMmapTests*", module]
    # The interpreter of Debian knows nothing of our package.
    env = {"PYTHONPATH": str(Path(mlockwipe.__file__).parents[1])} if python == DEBIAN else {}
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(run, command, env=env, cwd=tmp_path) for run in (run_bare, run_supervised)]
        bare, supervised = (run.result() for run in runs)
    assert bare.status == 0, bare.out + bare.err
    assert supervised.status == 0, supervised.out + supervised.err
    assert _verdict(supervised) == _verdict(bare)
    assert supervised.report["unprotected"] == []
    assert supervised.pages_wiped > 0


def _verdict(outcome: Outcome) -> list[str]:
    """What unittest says: how many tests were run, and how many skipped or failed."""
    said = re.findall(r"^(Ran \d+ tests?) in |^((?:OK|FAILED)(?: \(.*\))?)$", outcome.out + outcome.err, re.MULTILINE)
    verdict = ["".join(one) for one in said]
    assert len(verdict) == 2, outcome.out + outcome.err
    return verdict

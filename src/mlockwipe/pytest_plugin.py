# SPDX-License-Identifier: MIT
"""`pytest --mlockwipe-audit`: run the tests under `mlockwipe audit`, and fail each that leaves a secret.

pytest is started once more, under the audit; what is found while a test runs is that test's. What is found at the end
of the process, because a test locked it and never let go of it, is in the table after pytest's own summary.
"""

import os
import subprocess
import sys
from collections.abc import Generator

import pytest

_FINDINGS = "MLOCKWIPE_FINDINGS"
_LEFT = 3  # how `mlockwipe audit --fail` says that something was left


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("mlockwipe").addoption(
        "--mlockwipe-audit",
        action="store_true",
        help="fail each test that leaves a secret in locked memory, by running all under mlockwipe audit",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.option.mlockwipe_audit or _FINDINGS in os.environ:
        return None
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    audit = [sys.executable, "-P", "-m", "mlockwipe", "audit", "--fail", "--"]
    status = subprocess.call([*audit, sys.executable, *sys.orig_argv[1:]])
    return int(pytest.ExitCode.TESTS_FAILED) if status == _LEFT else status


def pytest_configure(config: pytest.Config) -> None:
    if config.option.mlockwipe_audit and _FINDINGS in os.environ:
        config.pluginmanager.register(_Watch(os.environ[_FINDINGS]))


class _Watch:
    """Whose phase it was when something was found."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read = os.path.getsize(path)  # what came before belongs to no test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        result = yield
        self._judge()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        result = yield
        self._judge()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        result = yield
        self._judge()
        return result

    def _judge(self) -> None:
        """Fail if anything was found since the last time."""
        size = os.path.getsize(self._path)
        if size == self._read:
            return
        from mlockwipe.audit.command import read
        from mlockwipe.audit.finding import is_fault
        from mlockwipe.audit.report import in_words

        found = [finding for finding in read(self._path, self._read) if is_fault(finding)]
        self._read = size
        if "PYTEST_XDIST_WORKER" in os.environ:  # the file is that of all workers
            found = [finding for finding in found if finding.process == os.getpid()]
        if found:
            pytest.fail("\n\n".join(map(in_words, found)), pytrace=False)

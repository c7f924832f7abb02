# SPDX-License-Identifier: MIT
"""`pytest --mlockwipe-audit`: run the tests under `mlockwipe audit`, and fail each that leaves a secret.

pytest is started once more, under the audit; what is found while a test runs is that test's. What is found at the end
of the process, because a test locked it and never let go of it, is in the table after pytest's own summary.
"""

import os
import subprocess
import sys

import pytest

from mlockwipe.audit import FINDINGS, LEFT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("mlockwipe").addoption(
        "--mlockwipe-audit",
        action="store_true",
        help="fail each test that leaves a secret in locked memory, by running all under mlockwipe audit",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.option.mlockwipe_audit or _is_audited():
        return None
    if sys.orig_argv[1:] in ([], ["-"]):
        raise pytest.UsageError("--mlockwipe-audit starts pytest once more, which it can't from standard input")
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    audit = [sys.executable, "-P", "-m", "mlockwipe", "audit", "--fail", "--"]
    status = subprocess.call([*audit, sys.executable, *sys.orig_argv[1:]])
    return int(pytest.ExitCode.TESTS_FAILED) if status == LEFT else status


def pytest_configure(config: pytest.Config) -> None:
    if config.option.mlockwipe_audit and _is_audited():
        # loaded by who wants it only: it needs pytest 8 (pluggy 1.2)
        from mlockwipe.audit.pytest_watch import Watch

        config.pluginmanager.register(Watch(os.environ[FINDINGS]))


def _is_audited() -> bool:
    return os.path.exists(os.environ.get(FINDINGS, ""))

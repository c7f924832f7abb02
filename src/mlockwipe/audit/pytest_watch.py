# SPDX-License-Identifier: MIT
"""Whose test it was when something was found: the half of mlockwipe.pytest_plugin that runs under the audit."""

import os
from collections.abc import Generator

import pytest

from mlockwipe.audit.finding import is_fault
from mlockwipe.audit.findings_file import read
from mlockwipe.audit.presentation import in_words

Phase = Generator[None, object, object]


class Watch:
    """Looks after each phase of a test at what was found meanwhile. `path`: the file of the findings."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read = os.path.getsize(path)  # what came before belongs to no test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Phase:
        return (yield from self._judged(item, "setup"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Phase:
        return (yield from self._judged(item, "call"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Phase:
        return (yield from self._judged(item, "teardown"))

    def _judged(self, item: pytest.Item, phase: str) -> Phase:
        """Fail if anything was found; where the test has failed by itself, tell it beside."""
        try:
            result = yield
        except BaseException:
            if told := self._news():
                item.add_report_section(phase, "mlockwipe audit", told)
            raise
        if told := self._news():
            pytest.fail(told, pytrace=False)
        return result

    def _news(self) -> str:
        try:
            size = os.path.getsize(self._path)
        except FileNotFoundError:
            return ""
        if size == self._read:
            return ""
        found = [finding for finding in read(self._path, self._read) if is_fault(finding)]
        self._read = size
        if "PYTEST_XDIST_WORKER" in os.environ:  # the file is that of all workers
            found = [finding for finding in found if finding.process == os.getpid()]
        return "\n\n".join(map(in_words, found))

# SPDX-License-Identifier: MIT
"""Programs one thread of which has a seccomp filter of its own, and what nobody gets under a filter."""

import sys

import pytest

from mlockwipe.contract.program import PAGES
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import run_bare, run_supervised
from tests.support.witnessed import run_command_before_witness

STRICT = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(libc.{}, os.strerror(ctypes.get_errno()))
"""


@needs_gcc
@pytest.mark.parametrize("first", ["free", "confined"])
def test_nothing_is_executed_in_a_thread_that_may_be_killed_for_it(first: str) -> None:
    bare, pages = run_command_before_witness([compiled("confined"), first], supervised=False)
    assert (bare.status, bare.err) == (0, "")
    assert (pages.total, pages.dirty) == (PAGES, PAGES)
    outcome, pages = run_command_before_witness([compiled("confined"), first], supervised=True)
    assert outcome.status == 0
    assert (pages.total, pages.dirty) == (PAGES, 0)
    assert outcome.err.count("\n") == 1
    assert "is protected in part: a thread of it has seccomp filters of its own" in outcome.err


@needs_gcc
def test_a_thread_that_can_not_be_protected_as_a_whole_may_not_lock_in_a_strict_run() -> None:
    command = [compiled("confined"), "confined"]
    outcome, pages = run_command_before_witness(command, supervised=True, arguments=["--strict"])
    assert outcome.status == 99
    assert "mlock: Operation not permitted" in outcome.err
    assert pages.total == 0


@pytest.mark.parametrize("call", ["prctl(22, 1, 0, 0, 0)", "syscall(317, 0, 0, 0)"])
def test_strict_mode_is_refused_and_the_reason_is_said(call: str) -> None:
    outcome = run_supervised([sys.executable, "-c", STRICT.format(call)])
    assert outcome.out == "-1 Invalid argument\n"
    assert outcome.err.count("\n") == 1
    assert "wants seccomp's strict mode" in outcome.err
    assert outcome.status == 0


def test_bare_a_program_gets_strict_mode() -> None:
    """The negative control: it is killed for the next call that strict mode does not allow."""
    assert run_bare([sys.executable, "-c", STRICT.format("prctl(22, 1, 0, 0, 0)")]).status < 0

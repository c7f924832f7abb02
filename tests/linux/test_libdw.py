# SPDX-License-Identifier: MIT
"""Stacks of a stopped program."""

import ctypes
import os
import subprocess
import time

import pytest

from mlockwipe.linux import libdw, ptrace
from mlockwipe.linux.libdw import Unwinder
from tests.support.c_programs import compiled, needs_gcc

pytestmark = pytest.mark.needs_library("libdw.so.1", "libdw1")


@needs_gcc
def test_a_stack_has_functions_files_and_lines() -> None:
    program = subprocess.Popen([compiled("careless", "-g", "-fno-optimize-sibling-calls"), "sleep"])
    try:
        ptrace.seize(program.pid, 0)
        seen = set()
        while "main" not in seen:  # it may have been stopped before
            ptrace.interrupt(program.pid)
            os.waitid(os.P_PID, program.pid, os.WSTOPPED)
            unwinder = Unwinder(program.pid)
            stack = unwinder.stack(program.pid)
            unwinder.close()
            seen = {frame.function for frame in stack}
            ptrace.cont(program.pid)
            time.sleep(0.01)  # or it gets nowhere
        (main,) = [frame for frame in stack if frame.function == "main"]
        assert main.file is not None
        assert main.file.endswith("careless.c")
        assert main.line is not None
        assert main.module is not None
    finally:
        program.kill()
        program.wait()


def test_a_program_that_is_not_stopped_has_no_stack_and_has_one_again_when_it_is() -> None:
    program = subprocess.Popen(["sleep", "300"])
    try:
        ptrace.seize(program.pid, 0)
        unwinder = Unwinder(program.pid)
        for _ in range(3):
            assert unwinder.stack(program.pid) == ()
        ptrace.interrupt(program.pid)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED)
        assert unwinder.stack(program.pid) != ()
        unwinder.close()
    finally:
        program.kill()
        program.wait()


def test_a_process_that_is_gone_has_no_stack() -> None:
    program = subprocess.Popen(["true"])
    program.wait()
    assert Unwinder(program.pid).stack(program.pid) == ()


def test_no_server_is_asked_for_debugging_information(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libdw, "_library", None)
    monkeypatch.setenv("DEBUGINFOD_URLS", "http://127.0.0.1:9")
    libdw.load()
    assert "DEBUGINFOD_URLS" not in os.environ


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(libdw, "_library", None)
    monkeypatch.setattr(ctypes, "PyDLL", missing)
    with pytest.raises(ImportError, match=r"libdw\.so\.1: cannot open"):
        libdw.load()

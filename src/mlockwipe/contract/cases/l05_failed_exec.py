# SPDX-License-Identifier: MIT
"""L5: an execve that fails takes nothing. A PATH search fails a few times before it succeeds."""

import ctypes
import os
import threading
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.files import write
from mlockwipe.contract.program import PAGE, Program, refused
from mlockwipe.contract.steps import sleeping_threads
from mlockwipe.contract.task_states import threads as threads_of
from mlockwipe.linux.libc import checked, function

_execve = function("execve", ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)


def survives(program: Program, call: Callable[[], object], error: str) -> None:
    """A secret is intact after a call that fails with `error`, and in the same pages."""
    at = program.secret()
    program.show(at)
    program.check("the call", refused(call), error)
    program.look()
    program.intact("the secret", at)


def _exec(path: str, argument: str = "program") -> Callable[[], object]:
    return lambda: os.execv(path, [argument])


@case("L5", "exec-enoent", KEPT, "there is no such program")
def enoent(program: Program) -> None:
    survives(program, _exec("/nonexistent/program"), "ENOENT")


@case("L5", "exec-eacces", KEPT, "a file that is not executable")
def eacces(program: Program) -> None:
    write("plain", b"", 0o600)
    survives(program, _exec("./plain"), "EACCES")


@case("L5", "exec-enoexec", KEPT, "a file that is no program")
def enoexec(program: Program) -> None:
    write("garbage", b"garbage" * 100, 0o700)
    survives(program, _exec("./garbage"), "ENOEXEC")


@case("L5", "exec-efault", KEPT, "arguments that are not there")
def efault(program: Program) -> None:
    survives(program, lambda: checked(_execve(b"/bin/true", 8, None), "execve()"), "EFAULT")


@case("L5", "exec-e2big", KEPT, "an argument longer than any may be")
def e2big(program: Program) -> None:
    survives(program, _exec("/bin/true", "x" * (33 * PAGE)), "E2BIG")


@case("L5", "exec-threads", KEPT, "one of four threads tries; the others live on")
def threads(program: Program) -> None:
    sleeping_threads(2)
    thread = threading.Thread(target=survives, args=(program, _exec("/nonexistent/program"), "ENOENT"))
    thread.start()
    thread.join()
    program.check("the other threads live", threads_of(os.getpid()) >= 3, True)

# SPDX-License-Identifier: MIT
"""Where a stopped task is: its calls, with the lines of a Python program in place of the interpreter's.

The lines of Python are read by py-spy, which knows the layout of each version of the interpreter, without stopping
anything. It is asked once for each stack that has an interpreter in it, and takes some 20 ms.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from mlockwipe.linux.libdw import Frame, Unwinder

Stack = tuple[Frame, ...]  # innermost call first

_PATIENCE = 20.0  # seconds


class Stacks:
    """The stacks of all processes. `say` is told, once, why the lines of Python are not there."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._unwinders: dict[int, Unwinder] = {}
        self._py_spy = _py_spy()

    def of(self, process: int, thread: int) -> Stack:
        """The stack of a thread that is in a ptrace stop of ours."""
        if process not in self._unwinders:
            self._unwinders[process] = Unwinder(process)
        stack = self._unwinders[process].stack(thread)
        for depth, frame in enumerate(stack):
            if _is_interpreter(frame):
                return stack[:depth] + (self._python_lines(process, thread) or stack[depth:])
        return stack

    def forget(self, process: int) -> None:
        """The process has ended, or executes another program."""
        unwinder = self._unwinders.pop(process, None)
        if unwinder is not None:
            unwinder.close()

    def _python_lines(self, process: int, thread: int) -> Stack:
        if self._py_spy is None:
            self._say("py-spy", "the lines of Python programs need py-spy: pip install py-spy")
            return ()
        command = [self._py_spy, "dump", "--nonblocking", "--json", "--pid", str(process)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
            threads = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            why = getattr(error, "stderr", b"") or str(error).encode()
            self._say("py-spy", f"py-spy can't read a Python program: {why.decode(errors='replace').splitlines()[0]}")
            return ()
        return tuple(
            Frame(frame["name"], frame["filename"], frame["line"] or None, None)
            for told in threads
            if told["os_thread_id"] == thread
            for frame in told["frames"]
        )


def _is_interpreter(frame: Frame) -> bool:
    name = os.path.basename(frame.module or "")
    return name.startswith(("python3", "libpython3"))


def _py_spy() -> str | None:
    """Beside our own interpreter, where pip puts it, or on the path."""
    return shutil.which("py-spy", path=os.path.dirname(sys.executable)) or shutil.which("py-spy")

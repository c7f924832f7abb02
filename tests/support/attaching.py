# SPDX-License-Identifier: MIT
"""A program that runs already, `mlockwipe attach` to it, and what a witness sees of both."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlockwipe.contract.witness import Pages, Witness, witness
from mlockwipe.linux import procfs
from tests.support.c_programs import compiled
from tests.support.running import TIMEOUT, Marked, marked

# The interpreter that runs the tests, and the package that it tests.
MLOCKWIPE = (sys.executable, "-c", "from mlockwipe.cli import main; import sys; sys.exit(main())")
PART = 4  # pages that the program shows at once


class Obedient:
    """tests/programs/obedient.c, and the witness that it shows its pages to."""

    def __init__(self, seen: Witness, environment: dict[str, str], threads: int, prefix: Sequence[str]) -> None:
        self._seen = seen
        self.process = subprocess.Popen(
            [*prefix, compiled("obedient"), str(seen.write_end), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            pass_fds=(seen.write_end,),
        )
        assert self.answer() == "ready"
        self.pid = self.process.pid

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def tell(self, orders: str) -> list[str]:
        """Give orders that are answered: the answers."""
        self.order(orders)
        return [self.answer() for _ in orders]

    def aim_at_child(self) -> None:
        """The process started is not the program, but its parent: signals and attach are for the program."""
        (child,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        self.pid = int(child)

    def order(self, orders: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(orders.encode())
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        return self.process.wait(TIMEOUT)

    def look(self) -> Pages:
        """What the pages that were shown hold now. It can be asked for once."""
        self._seen.look()
        return self._seen.pages


@contextmanager
def obedient(threads: int = 1, prefix: Sequence[str] = ()) -> Iterator[tuple[Obedient, Marked]]:
    """The program, which is killed in the end if it still runs; nothing else may be left then."""
    with marked() as processes, witness() as seen:
        program = Obedient(seen, processes.environment, threads, prefix)
        try:
            yield program, processes
        finally:
            program.process.kill()
            program.process.wait()
            for pipe in (program.process.stdin, program.process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # an order that it did not live to read
                    pipe.close()


# Makes a program process 1 of a PID namespace.
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class Attaching:
    """A running `mlockwipe attach`."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], prefix: Sequence[str]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mlockwipe-report-")
        Path(self._directory.name).chmod(0o777)
        self._report = Path(self._directory.name, "report.json")
        self.process = subprocess.Popen(
            [*prefix, "attach", "-v", "--report", str(self._report), *arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
        )
        self.said: list[str] = []

    def await_said(self, wanted: Callable[[str], bool]) -> None:
        """Read what it says, until a line is as wanted."""
        assert self.process.stderr is not None
        while line := self.process.stderr.readline().decode().removeprefix("mlockwipe: ").rstrip("\n"):
            self.said.append(line)
            if wanted(line):
                return
        raise AssertionError(f"it has ended, and said: {self.said}")

    def await_covered(self, *pids: int) -> None:
        left = set(pids)
        while left:
            self.await_said(lambda line: line.endswith("is covered from now on"))
            left.discard(int(self.said[-1].split()[1]))

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end, with all that it says: the exit status."""
        _, rest = self.process.communicate(timeout=TIMEOUT)
        self.said += [line.removeprefix("mlockwipe: ") for line in rest.decode().splitlines()]
        return self.process.returncode

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._report.read_text())
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._directory.cleanup()


@contextmanager
def attaching(
    *arguments: str, environment: dict[str, str] | None = None, prefix: Sequence[str] = MLOCKWIPE
) -> Iterator[Attaching]:
    attached = Attaching(arguments, dict(os.environ) if environment is None else environment, prefix)
    try:
        yield attached
    finally:
        attached.close()


@contextmanager
def attached(program: Obedient, *options: str, prefix: Sequence[str] = MLOCKWIPE) -> Iterator[Attaching]:
    """`mlockwipe attach` to a program, which is covered from the beginning on."""
    with attaching(*options, str(program.pid), prefix=prefix) as attachment:
        attachment.await_covered(program.pid)
        yield attachment


def tasks(pid: int) -> dict[int, dict[str, str]]:
    """Every task of a process, with what a tracer may change of it and must give back."""
    fields = ("Name", "TracerPid", "SigBlk", "SigPnd", "ShdPnd", "Cpus_allowed", "NoNewPrivs", "Seccomp")
    return {tid: {field: procfs.Status(tid)[field] for field in fields} for tid in procfs.tasks(pid)}

# SPDX-License-Identifier: MIT
"""Programs that end before the supervisor is imported, and those for which it must be."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import run_supervised

# The place of the listener is taken by a pipe: readable with a notification, at its end with no task left that has
# the filter. `program` is what the program does.
WAIT = """
import json, os, sys, time
from mlockwipe.linux.prctl import become_subreaper
from mlockwipe.supervisor import short_run
from mlockwipe.supervisor.channel import Channel
from mlockwipe.memory.journal import Journal

become_subreaper()
short_run._PATIENCE = int(sys.argv[1])
listener, tasks = os.pipe()
front, theirs = Channel.pair()
journal = Journal()
exec(sys.argv[2])
pid = os.fork()
if pid == 0:
    exec(sys.argv[3])
    os._exit(0)
end = short_run.wait(pid, listener, front, journal)
try:
    os.kill(pid, 9)
    reaped = False
except ProcessLookupError:
    reaped = True
end = end and [end.si_status, end.si_code]
print(json.dumps({"end": end, "noted": journal.program_end(), "reaped": reaped}))
"""
LONG = 60_000  # milliseconds: the end comes first, however busy the machine is


def wait(program: str, before: str = "", patience: int = LONG) -> dict[str, Any]:
    command = [sys.executable, "-c", WAIT, str(patience), before, program]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ended(status: int, code: int = os.CLD_EXITED) -> dict[str, Any]:
    return {"end": [status, code], "noted": [status, code], "reaped": True}


NOT_ENDED = {"end": None, "noted": None, "reaped": False}


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("os._exit(3)", ended(3)),
        ("os.kill(os.getpid(), 9)", ended(9, os.CLD_KILLED)),
        ("os.wait() if os.fork() else os._exit(4)", ended(0)),
        ("time.sleep(0.02)", ended(0)),
    ],
)
def test_an_end_with_nothing_left_is_noted_and_reaped(program: str, expected: dict[str, Any]) -> None:
    assert wait(program) == expected


def test_an_end_of_the_filter_before_that_of_the_program_is_waited_out() -> None:
    assert wait("time.sleep(0.02); os._exit(3)", "os.close(tasks)") == ended(3)


@pytest.mark.parametrize("descendant", ["time.sleep(0.5)", "pass"], ids=["alive", "a zombie"])
def test_a_descendant_that_is_left_is_a_matter_for_the_supervisor(descendant: str) -> None:
    assert wait(f"os.fork() or (exec({descendant!r}), os._exit(0)); time.sleep(0.05)") == NOT_ENDED


def test_a_notification_is_a_matter_for_the_supervisor() -> None:
    assert wait("time.sleep(60)", "os.write(tasks, b'x')") == NOT_ENDED


def test_the_death_of_the_front_is_a_matter_for_the_supervisor() -> None:
    assert wait("time.sleep(60)", "theirs.close()") == NOT_ENDED


def test_a_program_that_runs_on_is_a_matter_for_the_supervisor() -> None:
    assert wait("time.sleep(60)", patience=5) == NOT_ENDED


@pytest.mark.parametrize(("first", "expected"), [("end_it", ended(5)), ("pass_by", NOT_ENDED)])
def test_an_end_between_two_imports_leaves_off_the_others(
    tmp_path: Path, first: str, expected: dict[str, Any]
) -> None:
    (tmp_path / "pass_by.py").touch()
    (tmp_path / "end_it.py").write_text(
        "import __main__, os\n"
        "os.write(__main__.end_it, b'x')\n"
        "os.waitid(os.P_PID, __main__.pid, os.WEXITED | os.WNOWAIT)\n"
    )
    before = f"sys.path.append({str(tmp_path)!r}); short_run._PIECES = [{first!r}]; told, end_it = os.pipe()"
    if first == "end_it":
        before += "; short_run._PIECES.append('there_is_no_such_module')"
    assert wait("os.read(told, 1); os._exit(5)", before, patience=0) == expected


@pytest.mark.parametrize(
    ("script", "shell_status", "status"),
    [("exit 3", 3, {"exit": 3}), ("kill -9 $$", -9, {"signal": 9}), ("kill -TERM $$", -15, {"signal": 15})],
)
def test_the_report_of_a_short_program_is_whole(script: str, shell_status: int, status: dict[str, int]) -> None:
    outcome = run_supervised(["sh", "-c", script], arguments=["-v"])
    assert outcome.status == shell_status
    assert outcome.err == "mlockwipe: processes attached: 0; pages wiped: 0; could not be protected: 0\n"
    assert outcome.report == {
        "schema": 1,
        "command": ["sh"],
        "final": True,
        "status": status,
        "processes_attached": 0,
        "pages_wiped": {},
        "unprotected": [],
    }


LOCK_LATER = """
import time
from mlockwipe.linux import mm
time.sleep(0.3)
page = mm.mmap(0, 4096, 3, 0x22)
mm.mlock(page, 4096)
"""


def test_what_a_short_program_leaves_behind_is_supervised() -> None:
    outcome = run_supervised(["sh", "-c", f'"{sys.executable}" -c "$0" >/dev/null 2>&1 &', LOCK_LATER])
    assert outcome.status == 0
    assert outcome.report["final"]
    assert outcome.report["processes_attached"] == 1

# SPDX-License-Identifier: MIT
"""`mlockwipe audit` on programs with planted mistakes: it names exactly these, with their lines."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.c_programs import SOURCES, compiled, needs_gcc
from tests.support.python_lock import LOCK
from tests.support.running import MLOCKWIPE, TIMEOUT, marked
from tests.support.terminal import CTRL_C, terminal
from tests.support.unprivileged import AS_NOBODY, needs_nobody

pytestmark = [pytest.mark.needs_library("libdw.so.1", "libdw1")]

SOURCE = SOURCES / "careless.c"


@dataclass
class Audit:
    status: int
    err: str
    findings: list[dict[str, Any]]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(finding["kind"], finding["cause"]) for finding in self.findings]


def audit(command: list[str], place: Path, *options: str) -> Audit:
    path = place / "findings.json"
    with marked() as processes:
        done = subprocess.run(
            [MLOCKWIPE, "audit", "--json", str(path), *options, "--", *command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=processes.environment,
            stdin=subprocess.DEVNULL,
        )
    return Audit(done.returncode, done.stderr, json.loads(path.read_text())["findings"])


@pytest.fixture(scope="module")
def careless() -> str:
    return compiled("careless", "-g", "-fno-optimize-sibling-calls")  # or a last call leaves no trace


def line(which: str) -> int:
    """The line of tests/programs/careless.c with the mark `here: WHICH`."""
    (found,) = [number for number, text in enumerate(SOURCE.open(), 1) if f"here: {which} " in text]
    return found


def lines(stack: list[dict[str, Any]]) -> list[int]:
    return [frame["line"] for frame in stack if (frame["file"] or "").endswith("careless.c")]


MISTAKES = {
    "unlocked": ("unlocked-uncleared", "munlock"),
    "unmapped": ("released-uncleared", "munmap"),
    "exited": ("released-uncleared", "exit"),
    "heap": ("released-uncleared", "brk"),
    "forked": ("lost-by-fork", "exit"),
    "moved": ("released-uncleared", "munmap"),
    "half_unlocked": ("unlocked-uncleared", "munlock"),
    "grown": ("unlocked-uncleared", "munlock"),
    "shrunk": ("unlocked-uncleared", "munlock"),
    "neighbour": ("unlocked-uncleared", "munlock"),
    "killed": ("released-uncleared", "SIGKILL"),
    "child_locks": ("released-uncleared", "exit"),
    "daemon": ("lost-by-fork", "exit"),
}


@needs_gcc
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_with_its_lines(mistake: str, careless: str, tmp_path: Path) -> None:
    found = audit([careless, mistake], tmp_path)
    assert found.kinds == [MISTAKES[mistake]]
    (finding,) = found.findings
    assert lines(finding["locked"])[0] == line(f"{mistake}, locked")
    if f"here: {mistake}, released" in SOURCE.read_text():
        assert lines(finding["released"])[0] == line(f"{mistake}, released")
    else:
        assert finding["released"] == []
    clear = mistake == "daemon"
    assert (finding["pages"], finding["bytes"]) == ((0, 0) if clear else (1, 32))
    assert finding["length"] == {"neighbour": 32, "grown": 8192}.get(mistake, 4096)
    assert finding["program"] == careless
    assert found.status == (128 + signal.SIGKILL if mistake == "killed" else 0)
    assert MISTAKES[mistake][0] in found.err


@needs_gcc
def test_three_mistakes_and_one_secret_handled_well(careless: str, tmp_path: Path) -> None:
    found = audit([careless, "unlocked", "unmapped", "forked"], tmp_path, "--fail")
    assert found.status == 3
    assert sorted(found.kinds) == sorted(MISTAKES[mistake] for mistake in ("unlocked", "unmapped", "forked"))
    assert "3 locked ranges were left uncleared, lost or refused: 96 bytes" in found.err


@needs_gcc
@pytest.mark.parametrize(
    "what",
    [
        "",
        "executed",
        "child_clears",
        "not_for_children",
        "grandchild",
        "daemon_without",
        "no_vector",
        "hole",
        "beside",
    ],
)
def test_what_is_no_mistake_passes(what: str, careless: str, tmp_path: Path) -> None:
    found = audit([careless, what], tmp_path, "--fail")
    assert (found.status, found.findings) == (0, [])
    assert re.search(r"^mlockwipe audit: nothing was left uncleared by careless[-\w]*$", found.err, re.MULTILINE)
    assert "can't be protected" not in found.err


@needs_gcc
def test_locked_to_the_end_and_clear_is_told_and_no_failure(careless: str, tmp_path: Path) -> None:
    found = audit([careless, "kept"], tmp_path, "--fail")
    assert found.status == 0
    assert found.kinds == [("never-released", "exit")]
    assert "1 locked to the end, and clear" in found.err


@needs_gcc
@needs_nobody
@pytest.mark.skipif(not AS_NOBODY, reason="the limit is lowered for another user, which takes root")
def test_a_refused_lock_is_told_with_the_limit(careless: str, tmp_path: Path) -> None:
    found = audit([*AS_NOBODY, careless, "refused"], tmp_path, "--fail")
    assert found.status == 3
    (finding,) = found.findings
    assert (finding["kind"], finding["cause"]) == ("lock-refused", "mlock")
    assert lines(finding["locked"])[0] == line("refused, locked")
    assert finding["reason"] == "EPERM, RLIMIT_MEMLOCK is 0 bytes"


@needs_gcc
def test_a_mistake_in_a_thread_is_of_that_thread(careless: str, tmp_path: Path) -> None:
    (finding,) = audit([careless, "thread"], tmp_path).findings
    assert finding["thread"] != finding["process"]
    assert "in_thread" in [frame["function"] for frame in finding["locked"]]


@needs_gcc
def test_under_mlockall_everything_counts(careless: str, tmp_path: Path) -> None:
    found = audit([careless, "all"], tmp_path)
    assert found.kinds == [("released-uncleared", "exit")]  # the page that was never written is not found
    (finding,) = found.findings
    assert finding["pages"] > 10
    assert lines(finding["locked"])[0] == line("all, locked")


@needs_gcc
def test_the_secret_itself_is_told_nowhere(careless: str, tmp_path: Path) -> None:
    page = tmp_path / "findings.html"
    found = audit([careless, "unmapped", "exited"], tmp_path, "--html", str(page))
    for text in (found.err, (tmp_path / "findings.json").read_text(), page.read_text()):
        assert "kkk" not in text


def test_a_relative_path_is_where_the_user_stands(tmp_path: Path) -> None:
    command = [MLOCKWIPE, "audit", "--json", "findings.json", "--", "true"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT)
    assert json.loads((tmp_path / "findings.json").read_text())["findings"] == []


@needs_gcc
def test_the_page_has_the_whole_stacks(careless: str, tmp_path: Path) -> None:
    page = tmp_path / "findings.html"
    audit([careless, "unlocked"], tmp_path, "--html", str(page))
    text = page.read_text()
    assert f"{SOURCE}:{line('unlocked, released')}" in text
    assert re.search(r"<title>mlockwipe audit: [^ ]*/careless[^ ]*</title>", text)


AGAIN = """\
import ctypes
from mlockwipe.linux import mm, mman
def plain(): return mm.mmap(0, 65536, 3, 0x22)
{}
mm.munmap(at, 65536)
assert mm.mmap(at, 65536, 3, 0x22) == at
ctypes.memset(at, 65, 65536)
mm.munmap(at, 65536)
"""


@pytest.mark.parametrize(
    "before",
    [
        "at = plain(); mm.mlockall(mman.MCL_FUTURE)",
        "mm.mlockall(mman.MCL_FUTURE); at = plain(); mm.munlock(at, 65536)",
        "mm.mlockall(mman.MCL_FUTURE); at = plain()",
    ],
)
def test_what_takes_the_place_of_something_unlocked_counts_under_mcl_future(before: str, tmp_path: Path) -> None:
    found = audit([sys.executable, "-c", AGAIN.format(before)], tmp_path)
    assert [one["bytes"] for one in found.findings if one["kind"] == "released-uncleared"] == [65536]


PYTHON = (
    LOCK
    + """\
def forget():
    room, address = lock()
    room[:6] = bytes([107] * 6)
    libc.munlock(address, 4096)
forget()
"""
)


def test_a_python_program_is_told_by_its_own_lines(tmp_path: Path) -> None:
    program = tmp_path / "wallet.py"
    program.write_text(PYTHON)
    (finding,) = audit([sys.executable, str(program)], tmp_path).findings
    assert (finding["kind"], finding["bytes"]) == ("unlocked-uncleared", 6)
    own = {
        stack: [(f["function"], f["line"]) for f in finding[stack] if (f["file"] or "").endswith("wallet.py")]
        for stack in ("locked", "released")
    }
    assert own == {
        "locked": [("lock", 7), ("forget", 10), ("<module>", 13)],
        "released": [("forget", 12), ("<module>", 13)],
    }


def test_what_a_program_left_running_is_audited_too(tmp_path: Path) -> None:
    program = tmp_path / "daemon.py"
    program.write_text("import os, time\nif os.fork() == 0:\n    time.sleep(1)\n" + PYTHON.replace("\n", "\n    "))
    found = audit([sys.executable, str(program)], tmp_path, "--fail")
    assert found.status == 3
    assert found.kinds == [("unlocked-uncleared", "munlock")]
    assert "the command has ended; what it left running is audited until it ends" in found.err


def test_an_interrupt_tells_what_was_found_so_far(tmp_path: Path) -> None:
    program = tmp_path / "daemon.py"
    program.write_text(PYTHON + "import os, time\nif os.fork() == 0:\n    time.sleep(300)\n")
    with marked() as processes:
        command = [MLOCKWIPE, "audit", "--fail", "--", sys.executable, str(program)]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=processes.environment)
        assert running.stderr is not None
        assert "the command has ended" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(TIMEOUT) == 3
        processes.kill()  # the daemon has stderr too
        assert "unlocked-uncleared" in running.stderr.read()
        running.stderr.close()


def test_the_status_is_the_programs_own(tmp_path: Path) -> None:
    found = audit(["sh", "-c", "exit 7"], tmp_path, "--fail")
    assert (found.status, found.err) == (7, "mlockwipe audit: nothing has locked memory\n")
    assert audit(["no-such-command"], tmp_path).status == 127


def test_a_report_that_cannot_be_written_is_said_before_the_command_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [MLOCKWIPE, "audit", "--json", "/no/where.json", "--", "touch", str(tmp_path / "ran")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 125
    assert done.stderr.startswith("mlockwipe: the report /no/where.json can't be written")
    assert not (tmp_path / "ran").exists()


def test_without_a_command_the_usage_is_shown() -> None:
    done = subprocess.run([MLOCKWIPE, "audit", "--fail"], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2
    assert "no command given" in done.stderr
    done = subprocess.run(
        [MLOCKWIPE, "audit", "--json", "f", "--html", "./f", "--", "true"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 2
    assert "--json and --html name the same file" in done.stderr


@needs_gcc
def test_findings_outlive_a_supervisor_that_is_killed(careless: str, tmp_path: Path) -> None:
    program = tmp_path / "wallet.py"
    program.write_text(PYTHON + "import time\nprint('ready', flush=True)\ntime.sleep(300)\n")
    with marked() as processes:
        command = [MLOCKWIPE, "audit", "--", sys.executable, str(program)]
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=processes.environment
        )
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        (supervisor,) = processes.named("mlockwipe-super")
        os.kill(supervisor, signal.SIGKILL)
        _, err = running.communicate(timeout=TIMEOUT)
        assert "unlocked-uncleared" in err
        deadline = time.monotonic() + TIMEOUT
        while processes.processes() and time.monotonic() < deadline:
            time.sleep(0.05)


def test_ctrl_c_at_a_terminal_tells_what_was_found_so_far(tmp_path: Path) -> None:
    program = tmp_path / "daemon.py"
    program.write_text(PYTHON + "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\n")
    with terminal() as user:
        user.type(f"{MLOCKWIPE} audit --fail -- {sys.executable} {program}; echo status $?\n")
        user.until("the command has ended")
        user.type(CTRL_C)
        assert "unlocked-uncleared" in user.until("status 3\\s")
        user.processes.kill()


def test_under_another_mlockwipe_it_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "findings.json"
    command = [MLOCKWIPE, "run", "-q", "--", MLOCKWIPE, "audit", "--fail", "--json", str(report), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 125
    assert "audit from outside" in done.stderr


@pytest.mark.parametrize("fail", [False, True])
def test_what_could_not_be_audited_is_told_and_never_passes(fail: bool, careless: str, tmp_path: Path) -> None:
    """Four descriptors are needed for each address space."""
    path = tmp_path / "findings.json"
    words = ["audit", "--json", str(path), *(["--fail"] if fail else []), "--", careless, "unlocked"]
    with marked() as processes:
        done = subprocess.run(
            ["prlimit", "--nofile=12", "--", MLOCKWIPE, *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=processes.environment,
        )
    assert done.returncode == (3 if fail else 0), done.stderr
    assert f"mlockwipe: not audited, as said: {careless}\n" in done.stderr
    assert "nothing" not in done.stderr
    document = json.loads(path.read_text())
    assert (document["not_audited"], document["locking"]) == ([careless], [])


@pytest.mark.parametrize("fail", [False, True])
def test_findings_are_not_lost_where_nobody_can_be_told(fail: bool, careless: str, tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    words = ["audit", "--json", str(path), *(["--fail"] if fail else []), "--", careless, "unlocked"]
    with marked() as processes, open("/dev/full", "w") as full:
        buffered = {name: value for name, value in processes.environment.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run([MLOCKWIPE, *words], stderr=full, timeout=TIMEOUT, env=buffered)
    assert done.returncode == (3 if fail else 0)
    assert len(json.loads(path.read_text())["findings"]) > 0


def test_notes_that_were_damaged_are_told_and_never_pass(tmp_path: Path) -> None:
    program = 'printf "garb\\377\\n" >> "$MLOCKWIPE_FINDINGS"; exit 5'
    done = subprocess.run(
        [MLOCKWIPE, "audit", "--fail", "--", "sh", "-c", program], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 3
    assert "notes were damaged" in done.stderr
    removed = [MLOCKWIPE, "audit", "--", "sh", "-c", 'rm -r "${MLOCKWIPE_FINDINGS%/*}"; exit 5']
    done = subprocess.run(removed, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 5
    assert "notes were damaged" in done.stderr


def test_without_stderr_the_status_is_the_same() -> None:
    assert subprocess.run(["sh", "-c", f"exec {MLOCKWIPE} audit -- true 2>&-"], timeout=TIMEOUT).returncode == 0


@needs_gcc
def test_vfork_children_leave_nothing_open(careless: str) -> None:
    with marked() as processes:
        running = subprocess.Popen(
            [MLOCKWIPE, "audit", "--", careless, "vforks", "sleep"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=processes.environment,
        )
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        (supervisor,) = processes.named("mlockwipe-super")
        assert len(os.listdir(f"/proc/{supervisor}/fd")) < 40
        processes.kill()
        running.stdout.close()
        running.wait(TIMEOUT)

# SPDX-License-Identifier: MIT
"""Where a report is written, whatever somebody else does meanwhile in its directory; and what stands in it."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlockwipe.errors import Refused
from mlockwipe.report_file import ReportFile
from tests.support.running import MLOCKWIPE, marked, run_bare, run_supervised
from tests.support.unprivileged import nobody

LOCK = "from mlockwipe.linux import mm; mm.mlock(mm.mmap(0, 4096, 3, 0x22), 4096)\n"
needs_libdw = pytest.mark.needs_library("libdw.so.1", "libdw1")


def python(source: str, *, locks: bool) -> list[str]:
    return [sys.executable, "-c", "import os, sys\n" + (LOCK if locks else "") + source]


both = pytest.mark.parametrize("locks", [False, True], ids=["never-locks", "locks"])
options = pytest.mark.parametrize(
    "options", [["run", "--report"], pytest.param(["audit", "--json"], marks=needs_libdw)], ids=" ".join
)


# -- where


@options
@pytest.mark.parametrize("instead", ["link", "nothing", "another directory"])
def test_a_directory_that_is_exchanged_meanwhile_is_not_written_to(
    options: list[str], instead: str, tmp_path: Path
) -> None:
    place, moved, elsewhere = tmp_path / "place", tmp_path / "moved", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    exchange = {"link": f"os.symlink({str(elsewhere)!r}, {str(place)!r})", "nothing": ""}
    source = f"os.rename({str(place)!r}, {str(moved)!r}); " + exchange.get(instead, f"os.mkdir({str(place)!r})")
    done = run_bare([MLOCKWIPE, *options, str(place / "out.json"), "--", *python(source, locks=False)])
    assert done.status == 0
    assert json.loads((moved / "out.json").read_text())["schema"] == 1
    assert os.listdir(elsewhere) == []
    assert instead != "another directory" or os.listdir(place) == []


@options
@pytest.mark.parametrize("kind", ["pipe", "device", "link to elsewhere"])
def test_what_is_put_in_the_place_of_a_report_is_neither_opened_nor_followed(
    options: list[str], kind: str, tmp_path: Path
) -> None:
    report, elsewhere = tmp_path / "report", tmp_path / "elsewhere"
    elsewhere.write_text("of somebody else")
    source = (
        f"os.remove({str(report)!r})\n"
        + {
            "pipe": f"os.mkfifo({str(report)!r})",
            "device": f"os.mknod({str(report)!r}, 0o20600, os.makedev(1, 3))",
            "link to elsewhere": f"os.symlink({str(elsewhere)!r}, {str(report)!r})",
        }[kind]
    )
    if kind == "device" and os.geteuid():
        pytest.skip("only root can make a device")
    done = run_bare([MLOCKWIPE, *options, str(report), "--", *python(source + "\nsys.exit(7)", locks=False)])
    assert done.status == 7
    assert elsewhere.read_text() == "of somebody else"
    mode = report.lstat().st_mode
    if kind == "link to elsewhere":
        assert json.loads(report.read_text())["status"] in ({"exit": 7}, 7)
    else:
        assert not stat.S_ISREG(mode)
        assert done.err.count("can't be written: it is no regular file") == 1
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "report"]


def test_a_pipe_at_any_guessed_temporary_name_stops_nobody(tmp_path: Path) -> None:
    source = f"""
for pid in range(os.getpid() - 50, os.getpid() + 50):
    os.mkfifo(f"{tmp_path}/report.{{pid}}")
"""
    outcome = run_bare([MLOCKWIPE, "run", "--report", str(tmp_path / "report"), "--", *python(source, locks=True)])
    assert (outcome.status, outcome.err) == (0, "")
    assert json.loads((tmp_path / "report").read_text())["final"]


@options
@pytest.mark.parametrize("kind", ["link", "pipe or device"])
def test_what_another_user_has_put_there_before_is_refused(options: list[str], kind: str, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can make it")
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    if kind == "link":
        link.symlink_to(victim)
    else:
        os.mkfifo(link)
    os.chown(link, nobody().pw_uid, nobody().pw_gid, follow_symlinks=False)
    done = run_bare([MLOCKWIPE, *options, str(link), "--", "touch", str(tmp_path / "ran")])
    assert done.status == 125
    assert done.err == f"mlockwipe: the report {link} can't be written: it is a {kind} that another user has made\n"
    assert victim.read_text() == "precious"
    assert not (tmp_path / "ran").exists()


@options
@both
def test_what_can_not_be_written_in_the_end_is_said_once_and_changes_no_status(
    options: list[str], locks: bool, tmp_path: Path
) -> None:
    report = str(tmp_path / "report")
    source, reason = f"os.remove({report!r}); os.mkdir({report!r}); sys.exit(7)", "it is no regular file"
    done = run_bare([MLOCKWIPE, *options, report, "--", *python(source, locks=locks)])
    assert done.status == 7
    assert done.err.count("can't be written") == done.err.count(reason) == 1


@options
@pytest.mark.parametrize("path", ["/dev/stdout", "-", "/proc/self/fd/1"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_stdout_gets_the_report_after_all_that_the_program_said(
    options: list[str], path: str, kind: str, tmp_path: Path
) -> None:
    command = [MLOCKWIPE, *options, path, "--", *python("print('said'); sys.exit(7)", locks=True)]
    with marked() as processes, open(tmp_path / "log", "w+") as log:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log if kind == "file" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=processes.environment,
            text=True,
            timeout=60,
        )
        log.seek(0)
        out = log.read() if kind == "file" else done.stdout
    first, _, rest = out.partition("\n")
    assert (done.returncode, first) == (7, "said")
    assert json.loads(rest)["status"] in (7, {"exit": 7})
    assert os.listdir(tmp_path) == ["log"]  # no file of the name '-'


def test_stdout_gets_one_report_alone_of_a_program_that_leaves_a_daemon_behind() -> None:
    source = "import time\nif os.fork() == 0:\n    time.sleep(0.5)\n    os._exit(0)\nos._exit(3)"
    outcome = run_bare([MLOCKWIPE, "run", "--report", "-", "--", *python(source, locks=True)])
    assert outcome.status == 3
    assert json.loads(outcome.out)["final"]


@options
def test_stderr_can_be_named_too(options: list[str]) -> None:
    done = run_bare([MLOCKWIPE, *options, "/dev/stderr", "--", *python("sys.exit(7)", locks=False)])
    assert done.status == 7
    assert '"schema": 1' in done.err


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_never_replaced(device: str) -> None:
    before = os.stat(device)
    for words in (["run", "--report"], ["verify", "--carrier", "none", "--case", "W1-whole", "--json"]):
        separator = ["--", "true"] if words[0] == "run" else []
        assert run_bare([MLOCKWIPE, *words, device, *separator]).err.count("\n") <= 1
        assert os.path.samestat(os.stat(device), before)
        assert stat.S_ISCHR(os.stat(device).st_mode)


def test_a_pipe_is_written_to_where_nobody_waits_for_the_writer(tmp_path: Path) -> None:
    """As of `--json >(jq)`. Without a reader it is refused at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Refused, match="No such device or address"):
        ReportFile(str(pipe))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file = ReportFile(str(pipe))
    text = "much " * 100_000
    writer = threading.Thread(target=file.write, args=(text,))
    writer.start()
    os.set_blocking(reader, True)
    with open(reader) as read:
        assert read.read() == text
    writer.join()


def test_a_supervisor_gives_up_a_reader_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr("mlockwipe.report_file._standard_stream", lambda _: theirs.fileno())
    file = ReportFile("/dev/stdout", by_supervisor=True)
    monkeypatch.setattr(file, "_patience", 10)
    with pytest.raises(Refused, match="nobody reads it"):
        file.write("much " * 1_000_000)
    ours.close()
    theirs.close()


# -- what


@both
def test_a_report_is_for_its_user_alone(locks: bool, tmp_path: Path) -> None:
    report = tmp_path / "report"
    umask = os.umask(0)
    try:
        run_bare([MLOCKWIPE, "run", "--report", str(report), "--", *python("", locks=locks)])
    finally:
        os.umask(umask)
    assert report.stat().st_mode & 0o777 == 0o600


@both
@pytest.mark.parametrize("option", [[], ["--with-arguments"]], ids=["without", "with"])
def test_arguments_are_told_only_where_that_is_asked_for(option: list[str], locks: bool) -> None:
    command = [*python("", locks=locks), "--passphrase", "hunter2"]
    outcome = run_supervised(command, arguments=option)
    assert outcome.report["command"] == (command if option else command[:1])


@needs_libdw
@pytest.mark.parametrize("option", [[], ["--with-arguments"]], ids=["without", "with"])
def test_an_audit_tells_arguments_only_where_that_is_asked_for(option: list[str], tmp_path: Path) -> None:
    command = [*python("", locks=True), "--passphrase", "hunter2"]
    done = run_bare(
        [MLOCKWIPE, "audit", *option, "--json", "f.json", "--html", "f.html", "--", *command], cwd=tmp_path
    )
    for name in ("f.json", "f.html"):
        assert ("hunter2" in (tmp_path / name).read_text()) == bool(option)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in done.err

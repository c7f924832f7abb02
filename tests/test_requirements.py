# SPDX-License-Identifier: MIT
"""What a machine must allow: what is lacking is said in one sentence, by all verbs alike."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlockwipe import cli, requirements
from mlockwipe.requirements import (
    has_capability,
    may_trace,
    parse_release,
    why_no_attaching,
    why_no_files,
    why_no_filter,
    why_no_kernel,
    why_no_tracing,
)
from mlockwipe.status.checks import run_checks
from mlockwipe.status.machine import Machine


def allowed() -> bool:
    return True


def forbidden() -> bool:
    return False


@pytest.mark.parametrize(
    ("lack", "sentence"),
    [
        (why_no_kernel("x86_64", "5.19.0"), None),
        (why_no_kernel("x86_64", "6.1.0-18-amd64"), None),
        (why_no_kernel("x86_64", "next"), None),  # the kernel will tell
        (why_no_kernel("x86_64", "5.18.19"), "Linux 5.18.19 is too old: 5.19 or later"),
        (why_no_kernel("x86_64", "5.9-rc1"), "Linux 5.9-rc1 is too old"),
        (why_no_kernel("s390x", "6.12.0"), "runs on x86_64 only, this is s390x"),
        (why_no_files(-1), None),
        (why_no_files(8), None),
        (why_no_files(7), "only 7 files may be open"),
        (why_no_tracing(None, forbidden), None),
        (why_no_tracing("0", forbidden), None),
        (why_no_tracing("1", forbidden), None),
        (why_no_tracing("2", allowed), None),
        (why_no_tracing("2", forbidden), "ptrace_scope is 2, which forbids tracing: set it to 1 or run as root"),
        (why_no_tracing("3", allowed), "ptrace_scope is 3, which forbids tracing: set it to 1 (that takes a reboot)"),
        (why_no_tracing("4", allowed), "ptrace_scope is 4"),
        (why_no_attaching(None), None),
        (why_no_attaching("0"), None),
        (why_no_attaching("1"), "run mlockwipe attach as root"),
    ],
)
def test_a_lack_is_a_sentence(lack: str | None, sentence: str | None) -> None:
    if sentence is None:
        assert lack is None
    else:
        assert lack is not None
        assert sentence in lack


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EBUSY, "under a seccomp notification listener already"),
        (errno.EINVAL, "Linux 5.19 or later is needed"),
        (errno.EPERM, "Operation not permitted; allow seccomp(2) in the profile"),
    ],
)
def test_a_refused_filter_is_a_sentence(number: int, sentence: str) -> None:
    assert sentence in why_no_filter(OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-18-amd64", (6, 1)), ("6.18.44-fc", (6, 18)), ("5.19", (5, 19)), ("6", None), ("x.y", None)],
)
def test_release(release: str, version: tuple[int, int] | None) -> None:
    assert parse_release(release) == version


def test_capabilities_are_those_in_effect() -> None:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = {number for number in range(64) if int(status["CapEff"], 16) >> number & 1}
    assert {number for number in range(64) if has_capability(number)} == held
    assert may_trace() is (19 in held)


def test_run_attach_and_status_agree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(requirements, "ptrace_scope", lambda: "3")
    scope = tmp_path / "proc/sys/kernel/yama/ptrace_scope"
    scope.parent.mkdir(parents=True)
    scope.write_text("3\n")
    sentence = why_no_tracing("3", may_trace)
    for arguments in (["run", "true"], ["attach", "1"]):
        assert cli.main(arguments) == 125
        assert capsys.readouterr().err == f"mlockwipe: {sentence}\n"
    (check,) = [check for check in run_checks(Machine(root=tmp_path)) if check.name == "Yama ptrace_scope"]
    assert check.state == "bad"
    assert check.advice == f"'mlockwipe run' can't work here, because {sentence}."


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs mlockwipe on a machine that lacks a library."""

    def run(library: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        script = f"""
import ctypes, sys
load = ctypes.PyDLL
def PyDLL(name, *rest, **more):
    if name == {library!r}:
        raise OSError(f"{{name}}: cannot open shared object file: No such file or directory")
    return load(name, *rest, **more)
ctypes.PyDLL = PyDLL
from mlockwipe import cli
sys.exit(cli.main(sys.argv[1:]))
"""
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    return run


LIBSECCOMP = "mlockwipe: libseccomp is missing: install it (Debian: apt-get install libseccomp2)\n"
LIBDW = "mlockwipe: call stacks need libdw.so.1 of elfutils: apt-get install libdw1\n"


@pytest.mark.parametrize(
    ("library", "verb", "sentence"), [("libseccomp.so.2", "run", LIBSECCOMP), ("libdw.so.1", "audit", LIBDW)]
)
def test_a_missing_library_is_a_sentence_that_names_its_package(
    without: Callable[..., "subprocess.CompletedProcess[str]"], library: str, verb: str, sentence: str
) -> None:
    done = without(library, verb, "--", "echo", "started")
    assert (done.returncode, done.stdout, done.stderr) == (125, "", sentence)


def test_status_says_that_libseccomp_is_missing(without: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    done = without("libseccomp.so.2", "status", "--json")
    assert done.returncode == 0
    assert LIBSECCOMP.removeprefix("mlockwipe: ").rstrip() in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take /proc away from a process")
@pytest.mark.parametrize("arguments", [["run", "--", "echo", "started"], ["attach", "1"]])
def test_without_proc_the_lack_of_it_is_said(arguments: list[str]) -> None:
    take_away = ["unshare", "--mount", "sh", "-c", 'umount -l /proc && exec "$@"', "sh"]
    if subprocess.run([*take_away, "true"], capture_output=True).returncode:
        pytest.skip("/proc can't be unmounted here, as in a container without CAP_SYS_ADMIN")
    command = [*take_away, sys.executable, "-m", "mlockwipe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "mlockwipe: /proc is not mounted here: mount -t proc proc /proc\n"

# SPDX-License-Identifier: MIT
"""The comparison of LTP's tests, with a tree of three that look like LTP's."""

from pathlib import Path

import pytest

from mlockwipe_lab.ltp.__main__ import main, selected
from tests.support.c_programs import needs_gcc

pytestmark = needs_gcc

PROGRAMS = {
    "same01": "echo passed 2",
    "traced01": "grep -q '^TracerPid:.*\\b0$' /proc/self/status || { echo failed 1; exit 1; }; echo passed 1",
    "sysctl01": "exit 1",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "testcases" / "kernel" / "syscalls" / "fork"
    directory.mkdir(parents=True)
    for name, script in PROGRAMS.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    (directory / "sysctl01.c").write_text('SAFE_FILE_PRINTF("/proc/sys/kernel/pid_max", "%d", 1);\n')
    (tmp_path / "runtest").mkdir()
    (tmp_path / "runtest" / "syscalls").write_text("# all\n\n" + "".join(f"{name} {name}\n" for name in PROGRAMS))
    return tmp_path


def settings(directory: Path, accepted: str) -> Path:
    path = directory / "settings.toml"
    path.write_text(f'directories = ["fork"]\n[accepted]\n{accepted}\n')
    return path


def test_what_changes_the_machine_is_left_out(tree: Path) -> None:
    assert [test.name for test in selected(tree, ["fork"])] == ["same01", "traced01"]
    assert selected(tree, ["wait"]) == []


def test_a_difference_is_an_error_unless_it_is_accepted(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tree)], settings=settings(tree, "")) == 1
    assert "traced01: status 0, passed 1 | supervised: status 1, failed 1 | NOT ACCEPTED" in capsys.readouterr().out
    assert main([str(tree)], settings=settings(tree, 'traced01 = "it looks at its tracer"')) == 0
    assert "2 tests, 1 differ, 0 of them not accepted" in capsys.readouterr().out


def test_an_accepted_difference_that_is_gone_is_an_error(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted = settings(tree, 'traced01 = "it looks at its tracer"\nsame01 = "no reason any more"')
    assert main([str(tree)], settings=accepted) == 1
    assert "same01: differs no more" in capsys.readouterr().out


def test_no_test_at_all_is_an_error(tree: Path) -> None:
    assert main([str(tree), "--only", "no-such-test"], settings=settings(tree, "")) == 1

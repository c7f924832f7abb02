# SPDX-License-Identifier: MIT
"""What a build is refused for, before anything was changed."""

import subprocess
from pathlib import Path

import pytest

from mlockwipe.errors import Refused
from mlockwipe.kernel import build as module
from mlockwipe.kernel.build import build, check_tools
from tests.running import MLOCKWIPE


def test_missing_programs_are_named_with_the_line_for_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Refused, match=r"--no-install-recommends gcc make flex bison bc patch xz-utils"):
        check_tools()


def test_a_missing_header_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOOLS", {})
    monkeypatch.setattr(module, "HEADERS", {"/nowhere/libelf.h": "libelf-dev"})
    with pytest.raises(Refused, match=r"install --no-install-recommends libelf-dev$"):
        check_tools()


def test_a_directory_that_is_no_tree_of_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_tools", lambda: None)
    with pytest.raises(Refused, match="is no tree of Linux sources"):
        build("6.12", source=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_configuration_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [MLOCKWIPE, "kernel", "build", "--config", tmp_path / "none", "--output", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125
    assert done.stderr.startswith(f"mlockwipe: the configuration {tmp_path / 'none'} can't be read (No such file")
    assert len(done.stderr.splitlines()) == 1


def test_sources_that_apt_does_not_know_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "candidate", lambda package: None)
    monkeypatch.setattr(module, "check_tools", lambda: None)
    with pytest.raises(Refused, match=r"apt knows no package linux-source-6\.12: .*--source"):
        build("6.12")


def test_what_make_complains_about_is_said_and_its_log_kept(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(
        "all:\n\t@echo '  CC      mm/x.o'; echo 'mm/x.c:1: error: no such thing'; false\n"
    )
    with pytest.raises(Refused, match=rf"can't be built: mm/x\.c:1: error: no such thing; .*{tmp_path}/make\.log"):
        module._make(tmp_path, tmp_path, ["all"], lambda line: None)
    assert "CC" in (tmp_path / "make.log").read_text()

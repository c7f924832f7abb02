# SPDX-License-Identifier: MIT
"""What a build is refused for, before anything was changed."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

from mlockwipe.errors import Refused
from mlockwipe.kernel import build as module
from mlockwipe.kernel.build import build, check_tools
from mlockwipe.kernel.packages import complaint, do
from tests.support.running import MLOCKWIPE


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
        "all:\n\t@echo '  CC      lib/error-inject.o'; echo 'mm/x.c:1: error: no such thing'; false\n"
    )
    with pytest.raises(Refused, match=rf"can't be built: mm/x\.c:1: error: no such thing; .*{tmp_path}/make\.log"):
        module._make(tmp_path, tmp_path, ["all"], lambda line: None)
    assert "CC" in (tmp_path / "make.log").read_text()


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (
            "  CC  kernel/trace/error_report.o\nx.c:1:2: fatal error: no y.h\nmake: *** Error 1",
            "x.c:1:2: fatal error: no y.h",
        ),
        (
            "  LD  vmlinux\nld: mm/x.o: undefined reference to `y'\nmake: *** Error 1",
            "ld: mm/x.o: undefined reference to `y'",
        ),
        ('ERROR: modpost: "y" undefined!\nmake: *** Error 1', 'ERROR: modpost: "y" undefined!'),
        (
            "  CC  lib/error-inject.o\nmake[3]: *** No rule to make target 'x.pem'.",
            "make[3]: *** No rule to make target 'x.pem'.",
        ),
        ("  CC  lib/error-inject.o\n", "make failed"),
    ],
)
def test_of_a_log_the_line_is_said_that_tells_why(log: str, why: str) -> None:
    assert complaint(log) == why


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("CONFIG_MMU=y\n", "CONFIG_MMU=y\nCONFIG_INIT_MLOCKED_ON_FREE=y\n"),
        ("CONFIG_MMU=y", "CONFIG_MMU=y\nCONFIG_INIT_MLOCKED_ON_FREE=y\n"),
        ("# CONFIG_INIT_MLOCKED_ON_FREE is not set\n", "# CONFIG_INIT_MLOCKED_ON_FREE is not set\n"),
        ("CONFIG_INIT_MLOCKED_ON_FREE=y\n", "CONFIG_INIT_MLOCKED_ON_FREE=y\n"),
        (
            "CONFIG_INIT_MLOCKED_ON_FREE_DEFAULT_ON=y\n",
            "CONFIG_INIT_MLOCKED_ON_FREE_DEFAULT_ON=y\nCONFIG_INIT_MLOCKED_ON_FREE=y\n",
        ),
    ],
)
def test_a_configuration_that_does_not_know_the_option_has_it(before: str, after: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(before)
    assert module._settings(str(tmp_path / "config")) == after


def test_a_configuration_that_can_not_have_the_option_is_refused(tmp_path: Path) -> None:
    """Such as one of 32 bits: its kernel would be one without the option."""
    (tmp_path / "Makefile").write_text("olddefconfig:\n\t@sed -i /MLOCKED/d $(O)/.config\n")
    with pytest.raises(Refused, match=r"don't take CONFIG_INIT_MLOCKED_ON_FREE=y with this configuration$"):
        module._configure(tmp_path, tmp_path, "CONFIG_X=y\nCONFIG_INIT_MLOCKED_ON_FREE=y\n", whole=True)
    (tmp_path / "Makefile").write_text("olddefconfig:\n\t@sed -i /CONFIG_X/d $(O)/.config\n")
    module._configure(tmp_path, tmp_path, "CONFIG_X=y\nCONFIG_INIT_MLOCKED_ON_FREE=y\n", whole=True)


@pytest.mark.needs_program("xz", "xz-utils")
def test_the_sources_are_unpacked_whole_and_nothing_else_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux has a directory usr as the package has."""

    def fetch(package: str, place: Path, room: int, finish: Callable[[Path], None]) -> None:
        sources, root = tmp_path / "linux-source-6.12", tmp_path / "root"
        (sources / "usr").mkdir(parents=True)
        (sources / "usr" / "Kconfig").touch()
        (sources / "Kbuild").touch()
        (root / "usr" / "src").mkdir(parents=True)
        (root / "usr" / "share").mkdir()
        archive = root / "usr" / "src" / f"{sources.name}.tar.xz"
        subprocess.run(["tar", "--create", "--xz", f"--file={archive}", sources.name], cwd=tmp_path, check=True)
        finish(root)
        root.rename(place)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "candidate", lambda package: "6.12.1-1")
    monkeypatch.setattr(module, "fetch", fetch)
    tree = module.debian_source("6.12")
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["Kbuild", "usr", "usr/Kconfig"]


def test_a_second_build_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    events: Queue[str] = Queue()

    def second() -> None:
        with module._alone(tmp_path / "lock", events.put):
            events.put("the second builds")

    with module._alone(tmp_path / "lock", events.put):
        thread = Thread(target=second)
        thread.start()
        assert events.get(timeout=60) == f"waiting for another build in {tmp_path}"
        assert events.empty()
    assert events.get(timeout=60) == "the second builds"
    thread.join()
    assert events.empty()


def test_a_place_where_nothing_can_be_built_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # root may write to what a user may not
    with (
        pytest.raises(
            Refused, match=rf"nothing can be built in {tmp_path} \(Is a directory\): it has to be writable"
        ),
        module._alone(tmp_path / "lock", print),
    ):
        pass


@pytest.mark.needs_program("patch", "patch")
@pytest.mark.parametrize("patched", [True, False])
def test_a_kernel_is_built_with_the_series_or_without(
    patched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "linux-source-6.12_6.12.1-1"
    (tree / "mm").mkdir(parents=True)
    for name, text in (("Kbuild", ""), ("MAINTAINERS", ""), ("mm/old.c", "old\n")):
        (tree / name).write_text(text)
    patch = tmp_path / "0001.patch"
    patch.write_text("--- a/mm/old.c\n+++ b/mm/old.c\n@@ -1 +1 @@\n-old\n+new\n")
    built: list[tuple[str, str, bool]] = []

    def make(tree: Path, place: Path, targets: object, on_line: object) -> int:
        option = "CONFIG_INIT_MLOCKED_ON_FREE=y" in (place / ".settings").read_text()
        built.append((place.name, (tree / "mm" / "old.c").read_text(), option))
        return 1

    def configure(tree: Path, place: Path, settings: str, *, whole: bool) -> None:
        (place / ".settings").write_text(settings)

    monkeypatch.setattr(module, "cache", lambda: tmp_path)
    monkeypatch.setattr(module, "debian_source", lambda series: tree)
    monkeypatch.setattr(module, "patches", lambda series: [patch])
    monkeypatch.setattr(module, "check_tools", lambda: None)
    monkeypatch.setattr(module, "_configure", configure)
    monkeypatch.setattr(module, "_make", make)
    for _ in range(2):
        build("6.12", patched=True)
        build("6.12", patched=patched)
    name = "build-6.12-lab" if patched else "build-6.12-lab-unpatched"
    assert built == [("build-6.12-lab", "new\n", True), (name, "new\n" if patched else "old\n", patched)] * 2


def test_the_reason_is_what_was_said_before_make_says_where_it_stood(tmp_path: Path) -> None:
    script = "echo 'init/Kconfig:9: no such file' >&2; echo 'make[1]: *** [Makefile:2: x] Error 2' >&2; exit 2"
    with pytest.raises(Refused, match=r"^it failed: init/Kconfig:9: no such file$"):
        do(["sh", "-c", script], tmp_path, "it failed")

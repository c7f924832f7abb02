# SPDX-License-Identifier: MIT
"""A series goes into a tree of sources wholly or not at all, and writes no file that is as it should be."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from mlockwipe.errors import Refused
from mlockwipe.kernel.series import SERIES, apply, home, patches, touched, without, write
from tests.support.running import MLOCKWIPE

needs_patch = pytest.mark.needs_program("patch", "patch")

FIRST = """Subject: first
---
--- a/mm/old.c
+++ b/mm/old.c
@@ -1,2 +1,3 @@
 one
+one and a half
 two
--- /dev/null
+++ b/mm/new.c
@@ -0,0 +1 @@
+new
"""
SECOND = """Subject: second
---
--- a/mm/new.c
+++ b/mm/new.c
@@ -1 +1,2 @@
 new
+newer
--- a/mm/other.c
+++ b/mm/other.c
@@ -1 +1 @@
-three
+four
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "mm").mkdir(parents=True)
    (tmp_path / "tree" / "mm" / "old.c").write_text("one\ntwo\n")
    (tmp_path / "tree" / "mm" / "other.c").write_text("three\n")
    return tmp_path / "tree"


def series(place: Path, *texts: str) -> list[Path]:
    paths = [place / f"{number:04}-patch.patch" for number, _ in enumerate(texts, 1)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def contents(tree: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (tree / "mm").iterdir()}


@needs_patch
def test_a_series_is_applied_in_its_order(tree: Path, tmp_path: Path) -> None:
    both = series(tmp_path, FIRST, SECOND)
    assert touched(both) == ({"mm/old.c", "mm/other.c"}, {"mm/new.c"})
    apply(both, tree)
    assert contents(tree) == {"old.c": "one\none and a half\ntwo\n", "other.c": "four\n", "new.c": "new\nnewer\n"}


@needs_patch
def test_what_is_applied_already_is_not_written_again(tree: Path, tmp_path: Path) -> None:
    both = series(tmp_path, FIRST, SECOND)
    apply(both, tree)
    for path in (tree / "mm").iterdir():
        os.utime(path, (1, 1))
    apply(both, tree)
    assert {path.stat().st_mtime for path in (tree / "mm").iterdir()} == {1}


@needs_patch
def test_a_newer_version_of_the_series_replaces_the_older(tree: Path, tmp_path: Path) -> None:
    apply(series(tmp_path, FIRST, SECOND), tree)
    apply(series(tmp_path, FIRST.replace("a half", "three quarters"), SECOND), tree)
    assert contents(tree)["old.c"] == "one\none and three quarters\ntwo\n"
    assert contents(tree)["other.c"] == "four\n"


@needs_patch
def test_a_tree_that_the_series_does_not_fit_stays_as_it_was(tree: Path, tmp_path: Path) -> None:
    (tree / "mm" / "other.c").write_text("something else\n")
    before = contents(tree)
    with pytest.raises(Refused, match=r"0002-patch\.patch .*: mm/other\.c, hunk 1 at line 1; nothing was"):
        apply(series(tmp_path, FIRST, SECOND), tree)
    assert contents(tree) == before


@needs_patch
def test_a_file_that_is_not_there_is_named(tree: Path, tmp_path: Path) -> None:
    (tree / "mm" / "other.c").unlink()
    before = contents(tree)
    with pytest.raises(Refused, match=r"0002-patch\.patch .*: mm/other\.c, which is not there"):
        apply(series(tmp_path, FIRST, SECOND), tree)
    assert contents(tree) == before


@needs_patch
def test_a_tree_has_a_twin_without_the_series(tree: Path, tmp_path: Path) -> None:
    before = contents(tree)
    both = series(tmp_path, FIRST, SECOND)
    without(both, tree, tmp_path / "never patched")
    apply(both, tree)
    without(both, tree, tmp_path / "patched")
    assert contents(tmp_path / "never patched") == contents(tmp_path / "patched") == before
    assert not (tmp_path / "patched" / ".before-init_mlocked").exists()


@needs_patch
def test_a_twin_stays_as_it_is_when_the_series_changes(tree: Path, tmp_path: Path) -> None:
    """Although what neither version of the series has touched before is one file on the disk."""
    before = contents(tree)
    apply(series(tmp_path, FIRST), tree)
    without(patched := series(tmp_path, FIRST), tree, tmp_path / "twin")
    assert (tree / "mm" / "other.c").samefile(tmp_path / "twin" / "mm" / "other.c")
    apply([*patched, *series(tmp_path, FIRST, SECOND)[1:]], tree)
    assert contents(tree)["other.c"] == "four\n"
    assert contents(tmp_path / "twin") == before


@needs_patch
def test_a_script_can_be_executed_after_it_was_patched(tree: Path, tmp_path: Path) -> None:
    (tree / "mm" / "old.c").chmod(0o755)
    apply(series(tmp_path, FIRST), tree)
    without(series(tmp_path, FIRST), tree, tmp_path / "twin")
    assert os.access(tree / "mm" / "old.c", os.X_OK)
    assert os.access(tmp_path / "twin" / "mm" / "old.c", os.X_OK)


@pytest.mark.parametrize("name", SERIES)
def test_a_series_is_whole_and_in_the_form_of_git_am(name: str) -> None:
    found = patches(name)
    count = len(found)
    assert count >= 6
    for number, path in enumerate(found, 1):
        text = path.read_text()
        assert path.name.startswith(f"{number:04}-")
        assert f"[PATCH {number}/{count}]" in text
        assert "Signed-off-by: " in text
    changed, added = touched(found)
    assert "mm/init_mlocked.c" in added
    assert {"mm/memory.c", "mm/mmu_gather.c", "mm/mlock.c", "kernel/fork.c"} <= changed


def test_the_series_is_written_with_its_letter(tmp_path: Path) -> None:
    done = subprocess.run(
        [MLOCKWIPE, "kernel", "patch", "--series", "6.1", "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    names = [path.name for path in write("6.1", tmp_path / "again")]
    assert names[0] == "0000-cover-letter.patch"
    assert [Path(line).name for line in done.stdout.splitlines()] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_series_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match=r"no series for Linux 5\.4: it is one of 6\.1, 6\.12"):
        patches("5.4")


def test_an_installed_package_has_all_of_it_too() -> None:
    project = tomllib.loads((home().parent / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    directories = [path.name for path in home().iterdir() if path.is_dir()]
    assert included == {f"kernel/{name}": f"mlockwipe/kernel/{name}" for name in directories}

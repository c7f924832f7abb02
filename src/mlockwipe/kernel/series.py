# SPDX-License-Identifier: MIT
"""The patch series: which there are, and applying one to a tree of sources, wholly or not at all."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlockwipe.errors import Refused

SERIES = ("6.1", "6.12")

_TOUCHES = re.compile(r"^--- (\S+)\n\+\+\+ b/(\S+)", re.MULTILINE)
_KEPT = ".before-init_mlocked"  # in a tree: the files as they were before the series


def home() -> Path:
    """Where patches/ and configs/ are: beside the sources in a checkout, in the package when installed."""
    checkout = Path(__file__).parents[3] / "kernel"
    return checkout if (checkout / "patches").is_dir() else Path(__file__).parent


def patches(series: str) -> list[Path]:
    """The patches of a series in their order, without the cover letter.

    Raises Refused.
    """
    if series not in SERIES:
        raise Refused(f"there is no series for Linux {series}: it is one of {', '.join(SERIES)}")
    return sorted(path for path in (home() / "patches" / series).glob("*.patch") if not path.name.startswith("0000-"))


def write(series: str, place: Path) -> list[Path]:
    """Copy the series, its cover letter too, into the directory `place`."""
    patches(series)
    place.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, place)) for path in sorted((home() / "patches" / series).glob("*.patch"))]


def touched(series: Sequence[Path]) -> tuple[set[str], set[str]]:
    """The files that the patches change, and those that they add."""
    pairs = [pair for patch in series for pair in _TOUCHES.findall(patch.read_text())]
    added = {name for before, name in pairs if before == "/dev/null"}
    return {name for _, name in pairs} - added, added


def apply(series: Sequence[Path], tree: Path) -> None:
    """Bring the files of `tree` that the patches touch to what the patches make of them as they were at first; so
    a newer version of the series may follow an older one. What is already so is not written, so that only what
    changed is compiled anew.

    Raises Refused with the patch and the hunk, and then nothing was changed.
    """
    changed, added = touched(series)
    with tempfile.TemporaryDirectory(prefix="mlockwipe-series-") as name:
        work = Path(name)
        for file in changed:
            first = tree / _KEPT / file
            _copy(first if first.exists() else tree / file, work / file)
        for patch in series:
            _patch(patch, work, tree)
        for file in changed | added:
            there, kept = tree / file, tree / _KEPT / file
            if there.exists() and there.read_bytes() == (work / file).read_bytes():
                continue
            if file in changed and not kept.exists():
                _copy(there, kept)
            _copy(work / file, there)


def without(series: Sequence[Path], tree: Path, place: Path) -> None:
    """Make in `place` what `tree` was before the series was applied to it, if it was. Both may be built side by side;
    but for what the patches touch, their files are the same on the disk, by hard links."""
    _, added = touched(series)
    with tempfile.TemporaryDirectory(prefix=".without-", dir=place.parent) as name:
        work = Path(name) / "tree"
        shutil.copytree(
            tree, work, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns(_KEPT, ".build-*")
        )
        for kept in (tree / _KEPT).rglob("*"):
            if kept.is_file():
                _copy(kept, work / kept.relative_to(tree / _KEPT))
        for file in added:
            (work / file).unlink(missing_ok=True)
        work.rename(place)


def _copy(file: Path, place: Path) -> None:
    if file.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # not written into: it may be another tree's file too, by a hard link
        shutil.copy(file, place)


def _patch(patch: Path, work: Path, tree: Path) -> None:
    command = ["patch", "--strip=1", "--forward", "--batch", "--fuzz=0", "--no-backup-if-mismatch"]
    ran = subprocess.run([*command, f"--input={patch}"], cwd=work, capture_output=True, text=True)
    if ran.returncode:
        file, hunk = _first_failure(ran.stdout)
        raise Refused(f"{patch.name} doesn't fit the sources in {tree}: {file}, {hunk}; nothing was changed")


def _first_failure(said: str) -> tuple[str, str]:
    """The file and the hunk that `patch` stumbled over first."""
    file = "unknown file"
    for line in said.splitlines():
        if found := re.match(r"(?:checking|patching) file '?([^']+?)'?$|\|\+\+\+ b/(\S+)", line):
            file = found[1] or found[2]
        elif found := re.match(r"Hunk #(\d+) FAILED at (\d+)", line):
            return file, f"hunk {found[1]} at line {found[2]}"
        elif line.startswith("No file to patch"):
            return file, "which is not there"
        elif "previously applied" in line or "already exists" in line:
            return file, line.rstrip(".")
    return file, (said.splitlines() or ["no reason given"])[-1]

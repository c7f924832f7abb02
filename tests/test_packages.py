# SPDX-License-Identifier: MIT
"""The two packages: mlockwipe does its work without the lab, and nothing of one is in the other."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from mlockwipe import __version__

REPOSITORY = Path(__file__).parents[1]
LAB = REPOSITORY / "lab"


def files(project: Path, place: Path) -> list[str]:
    """What is in a project's wheel, which is unpacked there; but for what describes it."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place)]
    subprocess.run(build, cwd=project, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(place)
        return [name for name in archive.namelist() if ".dist-info/" not in name]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mlockwipe as it is installed, without the lab."""
    place = tmp_path_factory.mktemp("mlockwipe")
    files(REPOSITORY, place)
    return place


def run(place: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """With -S, no path to these sources is followed that pip has left for Python."""
    path = os.pathsep.join([str(place), sysconfig.get_path("purelib")])
    argv = [sys.executable, "-S", "-P", "-m", "mlockwipe", *words]
    return subprocess.run(argv, cwd=place, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


def test_the_lab_is_for_the_mlockwipe_that_it_is_released_with() -> None:
    ours, labs = (tomllib.loads((place / "pyproject.toml").read_text())["project"] for place in (REPOSITORY, LAB))
    assert labs["version"] == ours["version"] == __version__
    assert f"mlockwipe=={__version__}" in labs["dependencies"]


def test_nothing_of_the_lab_is_in_mlockwipe(tmp_path: Path) -> None:
    found = files(REPOSITORY, tmp_path)
    assert "mlockwipe/cli.py" in found
    assert {name.split("/")[0] for name in found} == {"mlockwipe"}
    assert not [name for name in found if name.startswith("mlockwipe/lab")]


def test_the_lab_has_its_programs_and_nothing_of_mlockwipe(tmp_path: Path) -> None:
    found = files(LAB, tmp_path)
    assert {name.split("/")[0] for name in found} == {"mlockwipe_lab"}
    tracked = subprocess.run(["git", "ls-files"], cwd=LAB, capture_output=True, text=True)
    if tracked.returncode == 0:  # it is not, where the sources were unpacked
        assert set(found) >= {name for name in tracked.stdout.splitlines() if name.startswith("mlockwipe_lab/")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--help",), "  lab  "),
        (("lab", "--help"), "mlockwipe-lab"),
        (("completion", "bash"), "_mlockwipe_command"),
        (("status",), "memory"),
        (("verify", "--case", "W1-whole"), "wiped 1"),
        pytest.param(("audit", "--", "true"), "", marks=pytest.mark.needs_library("libdw.so.1", "libdw1")),
    ],
    ids=" ".join,
)
def test_without_the_lab_mlockwipe_does_its_work(words: tuple[str, ...], said: str, alone: Path) -> None:
    done = run(alone, *words)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.parametrize("words", [(), ("verify",), ("verify", "--kernel", "debian-6.12"), ("bench", "--help")])
def test_without_the_lab_its_verb_names_the_package(words: tuple[str, ...], alone: Path) -> None:
    done = run(alone, "lab", *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "mlockwipe: the lab is a package of its own, mlockwipe-lab, which is not installed: run `make lab-setup` in "
        "mlockwipe's sources, or pip install ./lab there\n"
    )

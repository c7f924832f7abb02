# SPDX-License-Identifier: MIT
"""The faults that such a patch or module has most easily, each built in, are convicted by the lab."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.result import Result
from mlockwipe.kernel import module
from mlockwipe.kernel.build import build
from mlockwipe.kernel.packages import cache
from mlockwipe_lab.matrix.judge import verify_one
from mlockwipe_lab.vm.kernels import kernel
from tests.kernel.test_module import needs_a_guest
from tests.kernel.test_stress import needs_a_kernel
from tests.lab.test_verify import chosen

TRIES = 6  # two processes must be in the same 2 MiB at the same time, which is of chance where others are at work
WRONG = Path(__file__).with_name("wrong_designs")


@pytest.mark.parametrize(
    ("design", "convicts", "verdict"),
    [
        pytest.param("ignores-references", "L6-vmsplice-sigkill", "damaged", marks=needs_a_kernel),
        pytest.param("ignores-references", "L6-vmsplice-munmap", "damaged", marks=needs_a_kernel),
        pytest.param("decides-before-the-zap", "W12-shared-both-exit", "leaked", marks=needs_a_kernel),
    ],
)
def test_a_wrong_design_is_convicted(design: str, convicts: str, verdict: str, tmp_path: Path) -> None:
    built = build("6.12", extra=[WRONG / f"{design}.patch"])
    image = shutil.copy(built.image, tmp_path / "bzImage")  # the next build overwrites it
    (right,), (convicting,) = chosen("W6-return"), chosen(convicts)
    seen: list[Result] = []
    run = verify_one(
        kernel(str(image)),
        CARRIERS["boot-option"],
        [right, *[convicting] * TRIES],
        lambda verdict: seen.append(verdict.result),
    )
    assert run.failed is None, run.console[-3000:]
    assert [result.verdict for result in seen if result.case == "W6-return"] == ["wiped"]
    assert verdict in [result.verdict for result in seen if result.case == convicts]


@pytest.mark.parametrize(
    ("design", "convicts"),
    [
        pytest.param("module-ignores-references", "L6-vmsplice-sigkill", marks=needs_a_guest),
        pytest.param("module-ignores-the-lock", "L1-munlock-exit", marks=needs_a_guest),
    ],
)
def test_a_wrong_module_is_convicted(design: str, convicts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    debian = kernel("debian-6.12")
    monkeypatch.setattr("mlockwipe_lab.matrix.judge.build", lambda release, headers: built_wrong(design, headers))
    run = verify_one(debian, CARRIERS["module"], chosen("W6-return", convicts))
    assert run.failed is None, run.console[-3000:]
    assert {result.case: result.verdict for result in run.results} == {"W6-return": "wiped", convicts: "damaged"}


def built_wrong(design: str, headers: Path) -> Path:
    """The module with one of the wrong designs; where a guest can see it."""
    place = cache() / design
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in module.sources():
        shutil.copy(path, place)
    with (WRONG / f"{design}.patch").open() as patch:
        subprocess.run(["patch", "--strip=1", "--fuzz=0"], cwd=place, stdin=patch, check=True)
    module.make(headers, place)
    return place / f"{module.NAME}.ko"

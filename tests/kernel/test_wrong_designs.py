# SPDX-License-Identifier: MIT
"""The two faults that such a patch has most easily, each built into the kernel, are convicted by the lab."""

import shutil
from pathlib import Path

import pytest

from mlockwipe.contract import Result, all_cases
from mlockwipe.kernel.build import build
from mlockwipe.lab.carriers import lab_carrier
from mlockwipe.lab.kernel import kernel
from mlockwipe.lab.verify import verify_one
from tests.kernel.test_stress import needs_a_kernel

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
    (right,) = (case for case in all_cases() if case.name == "W6-return")
    (convicting,) = (case for case in all_cases() if case.name == convicts)
    seen: list[Result] = []
    run = verify_one(
        kernel(str(image)),
        lab_carrier("boot-option"),
        [right, *[convicting] * TRIES],
        lambda verdict: seen.append(verdict.result),
    )
    assert run.failed is None, run.console[-3000:]
    assert [result.verdict for result in seen if result.case == "W6-return"] == ["wiped"]
    assert verdict in [result.verdict for result in seen if result.case == convicts]

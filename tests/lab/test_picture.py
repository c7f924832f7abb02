# SPDX-License-Identifier: MIT
"""The picture of a run, drawn from its JSON."""

import json
from pathlib import Path
from xml.etree import ElementTree

from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.result import Result
from mlockwipe_lab.matrix.document import as_document
from mlockwipe_lab.matrix.judge import Look, Run, Verdict
from mlockwipe_lab.plots.matrix import draw
from mlockwipe_lab.vm.kernels import Kernel

NOTHING = Look(0, [])


def run(release: str, carrier: str, *results: Result, failed: str | None = None) -> Run:
    verdicts = [Verdict(result, NOTHING, NOTHING, 1.0) for result in results]
    kernel = Kernel(release, release, Path("/boot/vmlinuz"), None)
    return Run(kernel, CARRIERS[carrier], "tcg", verdicts=verdicts, failed=failed)


def lines(picture: Path) -> list[str]:
    """The lines of an SVG, without spaces."""
    found: dict[str, list[str]] = {}
    for text in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text"):
        found.setdefault(text.get("y", ""), []).append(text.text or "")
    return ["".join("".join(parts).split()) for parts in found.values()]


def test_a_row_has_the_counts_of_every_carrier_on_every_kernel(tmp_path: Path) -> None:
    leaked = [Result(f"W1-{name}", "W1", "leaked", "wiped", 16, 16) for name in ("whole", "head")]
    wiped = [Result("W1-whole", "W1", "wiped", "wiped", 16, 0), Result("W1-head", "W1", "unproven", "wiped", 8, 0)]
    told = as_document(
        [
            run("6.1.0-7", "none", *leaked),
            run("6.1.0-7", "supervisor", *wiped),
            run("6.12.8", "none", *leaked),
            run("6.12.8", "supervisor", failed="the guest is gone"),
        ],
        {"kernel": "6.18"},
    )
    draw(json.loads(json.dumps(told)), tmp_path / "lab.svg")
    drawn = lines(tmp_path / "lab.svg")
    for line in (
        "Linux 6.1.0-7, all memory searched",
        "W1 munmap leaked 2 wiped 1, unproven 1",
        "Linux 6.12.8, all memory searched",
        "W1 munmap leaked 2",
        "supervisor: the guest is gone",
    ):
        assert line.replace(" ", "") in drawn

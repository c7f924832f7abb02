# SPDX-License-Identifier: MIT
"""What a carrier is known not to do stands in the documents, and nothing else does."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.cases import all_cases

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [case.name for case in all_cases()]

# Where users read the limits: after this heading, until the next.
PLACES = {
    "init_on_free": ("lab.md", "## What is booted"),
    "supervisor": ("threat-model.md", "## The supervisor's own limits"),
    "boot-option": ("kernel.md", "## Limits"),
    "module": ("module.md", "## Limits"),
}


def documented(carrier: str) -> list[str]:
    """The cases that the document names as limits of a carrier."""
    file, heading = PLACES[carrier]
    section = (DOCS / file).read_text().split(f"\n{heading}\n")[1].split("\n## ")[0]
    return re.findall(r"`([WL]\d+-[a-z0-9*-]+)`", section)


def test_every_carrier_with_limits_has_a_place_for_them() -> None:
    assert set(PLACES) == {carrier.name for carrier in CARRIERS.values() if carrier.limits}


@pytest.mark.parametrize("carrier", PLACES)
def test_the_document_names_each_limit_and_no_other(carrier: str) -> None:
    assert sorted(documented(carrier)) == sorted(CARRIERS[carrier].limits)


@pytest.mark.parametrize("carrier", PLACES)
def test_every_limit_is_one_of_a_case_and_has_a_reason(carrier: str) -> None:
    for pattern, reason in CARRIERS[carrier].limits.items():
        assert any(fnmatchcase(name, pattern) for name in NAMES), pattern
        assert reason
        assert not reason.endswith(".")  # it stands in a sentence


def test_a_limit_is_found_by_the_name_of_the_case() -> None:
    init_on_free = CARRIERS["init_on_free"]
    assert init_on_free.limit("L1-munlock-exit") == init_on_free.limits["L1-*"]
    assert init_on_free.limit("W1-whole") is None
    assert CARRIERS["none"].limit("L1-munlock-exit") is None

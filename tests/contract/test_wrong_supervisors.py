# SPDX-License-Identifier: MIT
"""Supervisors that wipe all they should and more: the cases of what must stay convict each of them."""

import os

import pytest

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.runner import verify
from tests.support.wrong_supervisors import FAULTS, prefix

# What each of them does right, and what convicts it.
WIPED = ("W1-whole", "W6-return")
DAMAGED = {
    "wipes_files": ("L2-shared-exit", "L2-shared-read-only", "L2-private-unchanged-unmap"),
    "wipes_shared_memory": ("L3-anonymous-exit", "L3-memfd", "L3-sysv"),
    "wipes_before_it_is_sure": ("L5-unmap-no-more-mappings", "L5-map-refused", "L5-move-refused"),
    "wipes_when_the_first_leaves": ("L4-vfork-exec", "L4-shared-memory-child", "L4-thread-ends"),
    "wipes_frames": ("L4-parent-after-child", "L4-child-after-parent"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_supervisor_that_wipes_what_must_stay_is_convicted(fault: str) -> None:
    if fault == "wipes_frames" and os.geteuid() != 0:
        pytest.skip("needs root: to see the frames of pages")
    carrier = Carrier(fault, prefix(fault))
    cases = [case for case in all_cases() if case.name in WIPED + DAMAGED[fault]]
    found = {result.case: result.verdict for result in verify([carrier], cases=cases)[fault]}
    assert found == dict.fromkeys(WIPED, "wiped") | dict.fromkeys(DAMAGED[fault], "damaged")

# SPDX-License-Identifier: MIT
"""A CPU that a real-time task keeps for itself gives up no references: what others refer to must not wait for it."""

import json
import sys

import pytest

from mlockwipe.carriers import CARRIERS
from mlockwipe.lab.faults import fault
from mlockwipe.lab.kernel import kernel
from mlockwipe.lab.machine import boot
from mlockwipe.lab.verify import load_module
from tests.kernel.busy_cpu import PAGES
from tests.kernel.stress import GUEST_WITH_TESTS, call
from tests.kernel.test_module import needs_a_guest
from tests.kernel.test_stress import needs_a_kernel


@pytest.mark.parametrize(
    "carrier",
    [pytest.param("boot-option", marks=needs_a_kernel), pytest.param("module", marks=needs_a_guest)],
)
def test_only_what_a_busy_cpu_refers_to_waits_for_it(carrier: str) -> None:
    booted = kernel("patched-6.12" if carrier == "boot-option" else "debian-6.12")
    with boot(booted, GUEST_WITH_TESTS, append=CARRIERS[carrier].append) as machine:
        if carrier == "module":
            load_module(machine, booted, CARRIERS[carrier].module or ())
        ran = call(machine, "run", 150, argv=[sys.executable, "-m", "tests.kernel.busy_cpu"], limit=120)
        console = machine.console
    assert ran["status"] == 0, ran["said"]
    seen = json.loads(ran["said"])
    assert seen["kept_busy"]
    assert seen["deferred_by_end"] == PAGES  # it has what the others must not wait for
    assert seen["wiped_while_busy"] == PAGES
    assert seen["wiped"] == 2 * PAGES
    assert fault(console) is None

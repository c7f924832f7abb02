# SPDX-License-Identifier: MIT
"""A CPU that a real-time task keeps for itself gives up no references: what others refer to must not wait for it."""

import json
import sys

import pytest

from mlockwipe.carriers import CARRIERS
from mlockwipe_lab.kernel_checks.busy_cpu import PAGES
from mlockwipe_lab.kernel_checks.stress import call
from mlockwipe_lab.matrix.judge import load_module
from mlockwipe_lab.vm.failures import fault
from mlockwipe_lab.vm.kernels import kernel
from mlockwipe_lab.vm.machine import boot
from tests.kernel.test_module import needs_a_guest
from tests.kernel.test_stress import needs_a_kernel


@pytest.mark.parametrize(
    "carrier",
    [pytest.param("boot-option", marks=needs_a_kernel), pytest.param("module", marks=needs_a_guest)],
)
def test_only_what_a_busy_cpu_refers_to_waits_for_it(carrier: str) -> None:
    booted = kernel("patched-6.12" if carrier == "boot-option" else "debian-6.12")
    with boot(booted, append=CARRIERS[carrier].append) as machine:
        if carrier == "module":
            load_module(machine, booted, CARRIERS[carrier].module or ())
        argv = [sys.executable, "-m", "mlockwipe_lab.kernel_checks.busy_cpu"]
        ran = call(machine, "run", 150, argv=argv, limit=120)
        console = machine.console
    assert ran["status"] == 0, ran["said"]
    seen = json.loads(ran["said"])
    assert seen["kept_busy"]
    assert seen["deferred_by_end"] == PAGES  # it has what the others must not wait for
    assert seen["wiped_while_busy"] == PAGES
    assert seen["wiped"] == 2 * PAGES
    assert fault(console) is None

# SPDX-License-Identifier: MIT
"""A short stress of the boot option, and what convicts a kernel without it."""

import pytest

from mlockwipe.carriers import CARRIERS
from mlockwipe.kernel.build import TOOLS
from mlockwipe_lab.kernel_checks.stress import stress
from mlockwipe_lab.vm.failures import fault
from mlockwipe_lab.vm.kernels import kernel

needs_a_kernel = [
    *(pytest.mark.needs_program(tool, package) for tool, package in TOOLS.items()),
    pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86"),
    pytest.mark.needs_program("busybox", "busybox-static"),
    pytest.mark.timeout(1800),
]
SECONDS = 20


@pytest.mark.parametrize("option", [pytest.param(name, marks=needs_a_kernel) for name in ("boot-option", "none")])
def test_under_stress_nothing_is_corrupt_and_only_the_option_leaves_nothing(option: str) -> None:
    seen = stress(kernel("patched-6.12"), SECONDS, append=CARRIERS[option].append)
    wiped = [counts["vmstat"]["init_mlocked_wiped"] for counts in seen.counts]
    if option == "none":
        assert seen.left > 100
        assert seen.wrong == [f"{seen.left} pages were left behind"]
        assert wiped == [0, 0]
    else:
        assert seen.wrong == [], seen.console[-3000:]
        assert all(wiped)
        assert seen.counts[-1]["vmstat"]["init_mlocked_failed"] == 0


@pytest.mark.parametrize(
    "line",
    [
        "[    9.81] BUG: KASAN: slab-use-after-free in zap_pte_range+0x1/0x2",
        "[    9.81] WARNING: possible circular locking dependency detected",
        "[    9.81] BUG: sleeping function called from invalid context at mm/init_mlocked.c:1",
        "[    9.81] INFO: task mm_stress:12 blocked for more than 122 seconds.\n[    9.82] Call Trace:",
        "[    9.81] page_table_check: WARNING: kernel BUG: at mm/page_table_check.c:1",
    ],
)
def test_what_a_debug_kernel_complains_of_is_a_fault(line: str) -> None:
    assert fault(f"[    9.80] all is well\n{line}\n[    9.90] all is well") == line.splitlines()[-1]


def test_a_console_without_a_complaint_has_no_fault() -> None:
    assert fault("[    1.00] Run /init as init process\n[    2.00] random: crng init done") is None

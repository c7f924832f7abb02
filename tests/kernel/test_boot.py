# SPDX-License-Identifier: MIT
"""Words of the command line, and a process 1 that has locked all of its memory, on a kernel with the series."""

from pathlib import Path

import pytest

from mlockwipe_lab.kernel_checks.reboot import reboot
from mlockwipe_lab.vm.kernels import kernel
from tests.kernel.test_stress import needs_a_kernel
from tests.support.c_programs import compiled

MALFORMED = "Malformed early option 'init_mlocked_on_free'"  # init/main.c: do_early_param


@pytest.mark.parametrize(
    ("value", "malformed"),
    [
        pytest.param(value, malformed, marks=needs_a_kernel)
        for value, malformed in (("1", False), ("0", False), ("on", False), ("maybe", True), ("", True))
    ],
)
def test_a_locked_process_1_reboots_and_a_value_that_is_none_is_warned_of(value: str, malformed: bool) -> None:
    init = Path(compiled("locked_init", "-static"))
    console = reboot(kernel("patched-6.12"), init, ["reboot"], append=[f"init_mlocked_on_free={value}"])
    assert (MALFORMED in console) is malformed

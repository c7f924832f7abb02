# SPDX-License-Identifier: MIT
"""What the contract says holds under an audit, too: it must not change what it looks at."""

import sys

import pytest

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.carriers.supervisor import SUPERVISOR
from mlockwipe.contract.case import Case
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.judge import judge
from mlockwipe.contract.result import NO_VERDICT

ROWS = ("W2", "W3", "W4", "W5", "W8", "W12", "L1", "L4", "L5")
CASES = [case for case in all_cases() if case.row in ROWS and case.needs_ram_scan is None]
AUDIT = (sys.executable, "-P", "-m", "mlockwipe", "audit", "--")
TIMEOUT = 120.0  # seconds: each stack of a Python program takes 20 ms


@pytest.mark.needs_library("libdw.so.1", "libdw1")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_contract_holds_under_an_audit(case: Case) -> None:
    result = judge(case, Carrier("audit", AUDIT, limits=SUPERVISOR.limits), timeout=TIMEOUT)
    assert result.verdict in NO_VERDICT or result.passes("audit"), result

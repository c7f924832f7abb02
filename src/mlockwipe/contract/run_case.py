# SPDX-License-Identifier: MIT
"""Where the process of a case begins."""

import sys

from mlockwipe.contract.case import CASES
from mlockwipe.contract.program import Program


def main() -> None:
    """Run one case: sys.argv is [..., MODULE, CASE, WITNESS, CHANNEL]."""
    module, name, witness, channel = sys.argv[1:]
    __import__(module)
    CASES[name].body(Program(int(witness), int(channel)))

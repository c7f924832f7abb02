# SPDX-License-Identifier: MIT
"""The cases. A file is named by the row of docs/contract.md that its cases belong to: w07_killed.py has W7's."""

import os

from mlockwipe.contract.case import CASES, Case


def all_cases() -> list[Case]:
    """Every case, in the order of the contract's rows."""
    for name in sorted(os.listdir(__path__[0])):
        if name.endswith(".py") and name != "__init__.py":
            __import__(f"{__name__}.{name[:-3]}")
    return sorted(CASES.values(), key=lambda case: (case.row[0] != "W", int(case.row[1:])))

# SPDX-License-Identifier: MIT
"""The contract, put to the test: the cases, the witness, and the judge.

    from mlockwipe.contract import Carrier, verify

The program of every case imports this package and has to start fast, so the names are resolved when they are
used.
"""

TYPE_CHECKING = False  # typing's own constant costs the import of typing
if TYPE_CHECKING:
    from mlockwipe.contract.carrier import BARE, Carrier, bare
    from mlockwipe.contract.case import Case
    from mlockwipe.contract.cases import all_cases
    from mlockwipe.contract.result import Result, as_expected, to_json
    from mlockwipe.contract.runner import verify
    from mlockwipe.contract.start import command
    from mlockwipe.contract.table import print_table

__all__ = [
    "BARE",
    "Carrier",
    "Case",
    "Result",
    "all_cases",
    "as_expected",
    "bare",
    "command",
    "print_table",
    "to_json",
    "verify",
]

_MODULES = {
    "carrier": ("BARE", "Carrier", "bare"),
    "case": ("Case",),
    "cases": ("all_cases",),
    "result": ("Result", "as_expected", "to_json"),
    "runner": ("verify",),
    "start": ("command",),
    "table": ("print_table",),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

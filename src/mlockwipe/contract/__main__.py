# SPDX-License-Identifier: MIT
"""python -m mlockwipe.contract [--list] [NAME ...] [-- PREFIX ...]: judge cases by themselves.

PREFIX is a command that the program of the case is appended to: `-- mlockwipe run -q --`.
"""

import argparse
import sys

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.carriers.none import NONE
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import as_expected
from mlockwipe.contract.runner import verify
from mlockwipe.contract.verdict_table import print_table


def main(argv: list[str]) -> int:
    prefix: list[str] = []
    if "--" in argv:
        split = argv.index("--")
        argv, prefix = argv[:split], argv[split + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -m mlockwipe.contract",
        usage="%(prog)s [--list] [NAME ...] [-- PREFIX ...]",
        description="Judge cases of the contract; all, when none is named.",
    )
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a case, or a row: W7-sigkill-busy, W7")
    arguments = parser.parse_args(argv)
    cases = [
        case
        for case in all_cases()
        if not arguments.names or case.name in arguments.names or case.row in arguments.names
    ]
    if unknown := [name for name in arguments.names if not any(name in (case.name, case.row) for case in cases)]:
        parser.error(f"there is no case {', '.join(unknown)}; --list shows them")
    if arguments.list:
        for case in cases:
            print(f"{case.name:<40} {case.expected:<6} {case.why}")
        return 0
    carrier = Carrier(prefix[0], tuple(prefix)) if prefix else NONE
    results = verify([carrier], cases=cases)
    print_table(results, every_case=True)
    return 0 if as_expected(carrier.name, results[carrier.name]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

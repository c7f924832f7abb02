# SPDX-License-Identifier: MIT
"""`mlockwipe verify`."""

import argparse

from mlockwipe.verbs.parser import Verb
from mlockwipe.verbs.stdout import Stdout


class Verify(Verb):
    name = "verify"
    summary = "run the contract's cases on this machine and show what is left behind"
    description = (
        "Run every case of the contract and look at what the released pages really hold: without a carrier they must "
        "leak, under the supervisor they must be zero, and what is to be left alone must be whole. The exit status "
        "is 0 when every verdict is the expected one, else 1."
    )
    example = "  mlockwipe verify --carrier supervisor --case 'W7-*' --json verdicts.json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--carrier",
            action="append",
            choices=["none", "supervisor"],
            help="judge this carrier; may be given again (default: none and supervisor, side by side)",
        )
        parser.add_argument(
            "--case", metavar="GLOB", default="*", help="only cases whose name matches, such as 'W7-*'"
        )
        parser.add_argument(
            "--all", action="store_true", help="a line for every case, not for every row of the contract"
        )
        parser.add_argument(
            "--json", metavar="FILE", help="write the verdicts there, '-' for stdout instead of the table"
        )

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.contract.result import as_expected
        from mlockwipe.contract.verdict_table import print_table
        from mlockwipe.report_file import ReportFile
        from mlockwipe.verify_here import as_document, matching, verify_here

        cases = matching(arguments.case)
        if not cases:
            self.error(f"no case matches '{arguments.case}'")
        carriers = list(dict.fromkeys(arguments.carrier or ["none", "supervisor"]))
        file = ReportFile(arguments.json) if arguments.json not in (None, "-") else None

        results = verify_here(carriers, cases)
        if file is not None:
            file.write(as_document(results))
        with Stdout():
            if arguments.json == "-":
                print(as_document(results), end="")
            else:
                print_table(results, every_case=arguments.all)
        return 0 if all(as_expected(name, run) for name, run in results.items()) else 1


VERB = Verify()

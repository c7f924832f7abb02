# SPDX-License-Identifier: MIT
"""`mlockwipe status`."""

import argparse

from mlockwipe.verbs.parser import Verb, add_with_arguments
from mlockwipe.verbs.stdout import Stdout


class Status(Verb):
    name = "status"
    summary = "show what protects released secrets on this machine, and what doesn't"
    description = (
        "Show what protects released secrets on this machine, what doesn't and what to do about it, and which "
        "running processes hold locked memory and whether something will wipe it."
    )
    example = "  mlockwipe status --json | jq '.checks[] | select(.state == \"bad\")'"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON with a schema version instead of tables")
        add_with_arguments(parser, "show command lines, not programs alone")

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.status import inspect, to_json

        status = inspect(with_arguments=arguments.with_arguments)
        with Stdout():
            if arguments.json:
                import json

                print(json.dumps(to_json(status), indent=2))
            else:
                from mlockwipe.status.status_table import print_status

                print_status(status)
        return 0


VERB = Status()

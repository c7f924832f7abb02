# SPDX-License-Identifier: MIT
"""`mlockwipe audit`."""

import argparse

from mlockwipe.verbs.parser import Verb, add_command, add_with_arguments, command_of, same_file


class Audit(Verb):
    name = "audit"
    summary = "show which secrets a program did not clear, by call stack"
    description = (
        "Run COMMAND as `run` does, and tell of each range that it or a descendant has locked whether it was "
        "cleared: released or unlocked before it was, lost to a forked child, or never locked because the limit was "
        "reached; with the stacks of the calls, and how much was not zero, never the content. The exit status is the "
        "command's own, as in `run`."
    )
    example = "  mlockwipe audit --fail --json findings.json -- python3 -m mywallet"
    usage = "mlockwipe audit [--fail] [--json FILE] [--html FILE] [--with-arguments] [--] COMMAND [ARG ...]"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--fail", action="store_true", help="end with 3 when anything was left uncleared, for a CI"
        )
        parser.add_argument("--json", metavar="FILE", help="write the findings there, '-' for stdout")
        parser.add_argument("--html", metavar="FILE", help="write them there as a page, with whole stacks")
        add_with_arguments(parser, "tell the command's arguments in them, not the program alone")
        add_command(parser)

    def call(self, arguments: argparse.Namespace) -> int:
        command = command_of(self, arguments)
        if same_file(arguments.json, arguments.html):
            self.error("--json and --html name the same file")

        from mlockwipe.audit.audited_run import audit

        return audit(
            command,
            fail=arguments.fail,
            json_file=arguments.json,
            html_file=arguments.html,
            with_arguments=arguments.with_arguments,
        )


VERB = Audit()

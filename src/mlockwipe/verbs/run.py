# SPDX-License-Identifier: MIT
"""`mlockwipe run`. Options that are written plainly don't come this way: mlockwipe.cli reads them by hand."""

import argparse

from mlockwipe.supervisor.options import Options
from mlockwipe.verbs.parser import Verb, add_command, add_protection, add_report, add_with_arguments, command_of


class Run(Verb):
    name = "run"
    summary = "run a program and wipe its locked memory whenever it is released"
    description = (
        "Run COMMAND so that every page that it or a descendant has mlocked and not munlocked is zeroed when it is "
        "released: by munmap, exit, exec or any death, SIGKILL included. The exit status is the command's own; 125 "
        "when mlockwipe itself failed, 126 when COMMAND can't be executed, 127 when it is not found."
    )
    example = "  mlockwipe run --report wiped.json -- gpg-agent --daemon"
    usage = (
        "mlockwipe run [--strict] [--no-unmap] [--report FILE.json] [--with-arguments] [-q | -v]\n"
        "                     [--] COMMAND [ARG ...]"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add_protection(parser)
        add_report(parser, "say what is attached and wiped")
        add_with_arguments(parser, "tell the command's arguments in the report, not the program alone")
        add_command(parser)

    def options(self, arguments: argparse.Namespace) -> Options:
        return Options(
            command=command_of(self, arguments),
            strict=arguments.strict,
            unmap=not arguments.no_unmap,
            report=arguments.report,
            with_arguments=arguments.with_arguments,
            verbosity=arguments.verbose - arguments.quiet,
        )

    def call(self, arguments: argparse.Namespace) -> int:
        options = self.options(arguments)

        from mlockwipe.supervisor.front import run

        return run(options)


VERB = Run()

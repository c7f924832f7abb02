# SPDX-License-Identifier: MIT
"""`mlockwipe exec`."""

import argparse

from mlockwipe.verbs.parser import Verb, add_command, add_protection, command_of


class Exec(Verb):
    name = "exec"
    summary = "become a program that `mlockwipe serve` supervises"
    description = (
        "Hand this process over to the service at the socket, and become COMMAND: the same pid, the same parent, and "
        "nothing of mlockwipe around it. Its locked memory and that of its descendants is wiped whenever it is "
        "released, even when all of them are killed at once. 125 when mlockwipe itself failed, and COMMAND was not "
        "started; 126 when it can't be executed, 127 when it is not found."
    )
    example = "  mlockwipe exec -- gpg-agent --supervised"
    usage = "mlockwipe exec [--socket PATH] [--strict] [--no-unmap] [-v] [--] COMMAND [ARG ...]"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--socket", metavar="PATH", help="of the service (default: /run/mlockwipe.sock)")
        add_protection(parser)
        parser.add_argument(
            "-v", "--verbose", action="store_true", help="have the service say what was wiped in the end"
        )
        add_command(parser)

    def call(self, arguments: argparse.Namespace) -> int:
        command = command_of(self, arguments)

        from mlockwipe.supervisor.handover import Wish, execute

        return execute(
            command,
            arguments.socket,
            Wish(strict=arguments.strict, unmap=not arguments.no_unmap, verbose=arguments.verbose),
        )


VERB = Exec()

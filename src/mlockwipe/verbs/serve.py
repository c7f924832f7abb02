# SPDX-License-Identifier: MIT
"""`mlockwipe serve`."""

import argparse

from mlockwipe.verbs.parser import Verb


class Serve(Verb):
    name = "serve"
    summary = "supervise services and containers from outside of what is killed with them"
    description = (
        "Wait at a UNIX socket for programs that `mlockwipe exec` or a container runtime hands over, and wipe their "
        "locked memory whenever it is released, also when all of a service or a container is killed at once. Each "
        "has a supervisor of its own, which lasts until the last of its processes has ended, even when this process "
        "is asked to end before. The socket of a service manager is taken if there is one."
    )
    example = "  mlockwipe serve --socket /run/mlockwipe.sock"
    usage = "mlockwipe serve [--socket PATH] [--reports DIRECTORY] [-q | -v]"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--socket",
            metavar="PATH",
            help="where to listen (default: /run/mlockwipe.sock, without a service manager)",
        )
        parser.add_argument(
            "--reports", metavar="DIRECTORY", help="write there, for each that has ended, what was wiped and what not"
        )
        talk = parser.add_mutually_exclusive_group()
        talk.add_argument("-q", "--quiet", action="store_true", help="say only what was refused and what was wiped")
        talk.add_argument("-v", "--verbose", action="store_true", help="say of each that it has ended")

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.requirements import check_machine
        from mlockwipe.supervisor.service import ServeOptions, serve

        check_machine()
        return serve(ServeOptions(arguments.socket, arguments.reports, arguments.verbose - arguments.quiet))


VERB = Serve()

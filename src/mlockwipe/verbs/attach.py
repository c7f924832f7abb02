# SPDX-License-Identifier: MIT
"""`mlockwipe attach`."""

import argparse

from mlockwipe.verbs.parser import Verb, add_report, positive


class Attach(Verb):
    name = "attach"
    summary = "cover programs that run already, until they end"
    description = (
        "From now on, what the processes PID and their descendants still have locked when they end, exec or are "
        "killed, SIGKILL included, is zeroed. Ctrl-C leaves them as they were. As root, or for processes of one's "
        "own where ptrace allows it. The exit status is 0 when all have ended or have been left, 125 when none could "
        "be attached to. docs/attach.md tells what is not covered."
    )
    example = "  mlockwipe attach 1234"
    usage = (
        "mlockwipe attach [--all-memory] [--report FILE.json] [-q | -v] PID ...\n"
        "       mlockwipe attach --all [--min-locked SIZE] [--policy FILE] [--all-memory] [--report FILE.json] "
        "[-q | -v]"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("pids", nargs="*", type=_pid, metavar="PID", help="a process that runs")
        parser.add_argument(
            "--all",
            action="store_true",
            help="watch the machine for processes that hold locked memory, instead of PIDs",
        )
        parser.add_argument(
            "--min-locked", type=_size, metavar="SIZE", help="with --all: how much a process must hold (default: 4K)"
        )
        parser.add_argument("--policy", metavar="FILE", help="with --all: which of them to attach to, a TOML file")
        parser.add_argument(
            "--all-memory",
            action="store_true",
            help="wipe all private memory in the end, locked or not: copies that were inherited are covered too",
        )
        add_report(parser, "say what is wiped")

    def call(self, arguments: argparse.Namespace) -> int:
        if arguments.all == bool(arguments.pids):
            self.error("name either processes or --all")
        if not arguments.all and (arguments.policy is not None or arguments.min_locked is not None):
            self.error("--policy and --min-locked belong to --all")

        from mlockwipe.attach.cover import AttachOptions, cover

        return cover(
            AttachOptions(
                pids=list(dict.fromkeys(arguments.pids)),
                least=arguments.min_locked or 4096,
                policy=arguments.policy,
                all_memory=arguments.all_memory,
                report=arguments.report,
                verbosity=arguments.verbose - arguments.quiet,
            )
        )


def _size(text: str) -> int:
    from mlockwipe.attach.size import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pid(text: str) -> int:
    return positive(text, "process id")


VERB = Attach()

# SPDX-License-Identifier: MIT
"""`mlockwipe completion`: the one verb that needs all others."""

import argparse
from collections.abc import Iterator

from mlockwipe.verbs import VERBS, load, top_parser
from mlockwipe.verbs.parser import Verb
from mlockwipe.verbs.stdout import Stdout


class Completion(Verb):
    name = "completion"
    summary = "print the completion script for a shell"
    description = "Print a script that completes mlockwipe's verbs and options in bash, zsh or tcsh."
    example = "  mlockwipe completion bash > ~/.local/share/bash-completion/completions/mlockwipe"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], metavar="bash|zsh|tcsh")

    def call(self, arguments: argparse.Namespace) -> int:
        import shtab

        complete = {
            "FILE": shtab.FILE,
            "FILE.json": shtab.FILE,
            "DIR": shtab.DIRECTORY,
            "COMMAND": {"bash": "_mlockwipe_command", "zsh": "_normal", "tcsh": "c"},
        }
        # shtab follows argparse's own tree of subparsers; mlockwipe.verbs.call() goes without it.
        top = top_parser()
        subparsers = top.add_subparsers(metavar="VERB", parser_class=argparse.ArgumentParser)
        for name in VERBS:
            verb = load(name)
            parser = subparsers.add_parser(name, help=verb.summary)
            verb.arguments(parser)
            for action in _actions(parser):
                if action.metavar in complete:
                    action.complete = complete[action.metavar]  # type: ignore[attr-defined]
        commands = '_mlockwipe_command() { compgen -c -A file -- "$1"; }' if arguments.shell == "bash" else ""
        with Stdout():
            print(shtab.complete(top, arguments.shell, preamble=commands))
        return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Its own, and those of the parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


VERB = Completion()

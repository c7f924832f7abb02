# SPDX-License-Identifier: MIT
"""What a verb is, its parser, and the arguments that several verbs have."""

import argparse
import os
from abc import ABC, abstractmethod
from typing import Any, NoReturn

from mlockwipe.messages import say_as_it_is
from mlockwipe.printable import printable

USAGE = 2


class _HelpFormatter(argparse.HelpFormatter):
    """Width from the terminal by os alone: argparse asks shutil for it, at the first add_argument already,
    and shutil loads bz2, lzma and zlib (5 ms). A text of several lines is kept as it is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=_columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def _columns() -> int:
    try:
        return max(40, int(os.environ["COLUMNS"]))
    except (KeyError, ValueError):
        pass
    try:
        return max(40, os.get_terminal_size(1).columns)
    except OSError:  # not a terminal
        return 100


class Parser(argparse.ArgumentParser):
    """Usage and one sentence on stderr, status 2. Abbreviated options are not taken: they would change their
    meaning with the next option we add. `more`: what argparse gives to a parser below another."""

    def __init__(self, prog: str, description: str, epilog: str, usage: str | None = None, **more: Any) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **more,
        )

    def error(self, message: str) -> NoReturn:
        say_as_it_is(f"{self.format_usage()}{self.prog}: {printable(message)}; see '{self.prog} --help'\n")
        raise SystemExit(USAGE)


class Verb(ABC):
    """A verb's texts, its arguments and what it calls. `name`: what is typed after `mlockwipe`."""

    name: str
    summary: str
    description: str
    example: str
    usage: str | None = None

    def arguments(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027, not abstract: a verb may have none
        """Add its arguments to a parser."""

    @abstractmethod
    def call(self, arguments: argparse.Namespace) -> int:
        """Do it: the exit status."""

    def parser(self) -> Parser:
        parser = Parser(f"mlockwipe {self.name}", self.description, f"example:\n{self.example}", self.usage)
        self.arguments(parser)
        return parser

    def error(self, sentence: str) -> NoReturn:
        """End with usage, a sentence about a mistake in the arguments, and status 2."""
        self.parser().error(sentence)


class Verbs(Verb):
    """A verb that has others below it, as `mlockwipe kernel` has."""

    below: tuple[Verb, ...]

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        words = [verb.name.split()[-1] for verb in self.below]
        choices = parser.add_subparsers(metavar="|".join(words), required=True, parser_class=Parser)
        for word, verb in zip(words, self.below, strict=True):
            below = choices.add_parser(
                word,
                prog=f"mlockwipe {verb.name}",
                help=verb.summary,
                description=verb.description,
                epilog=f"example:\n{verb.example}",
            )
            verb.arguments(below)
            below.set_defaults(verb=verb)

    def call(self, arguments: argparse.Namespace) -> int:
        verb: Verb = arguments.verb  # the lowest
        return verb.call(arguments)


def add_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")


def command_of(verb: Verb, arguments: argparse.Namespace) -> list[str]:
    command: list[str] = arguments.command
    if command[:1] == ["--"]:  # REMAINDER keeps it; a later one belongs to the command
        del command[0]
    if not command:
        verb.error("no command given")
    return command


def add_protection(parser: argparse.ArgumentParser) -> None:
    """--strict and --no-unmap."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse a lock with EPERM where its memory could not be wiped, instead of a warning",
    )
    parser.add_argument(
        "--no-unmap",
        action="store_true",
        help="wipe at exit and exec only; munmap, mremap and brk run at full speed",
    )


def add_report(parser: argparse.ArgumentParser, verbose: str) -> None:
    """--report, -q and -v. `verbose`: what the last is for."""
    parser.add_argument(
        "--report",
        metavar="FILE.json",
        help="write there, or to stdout ('-') in the end, what was wiped and what could not be",
    )
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("-q", "--quiet", action="store_true", help="say nothing but why mlockwipe itself failed")
    talk.add_argument("-v", "--verbose", action="store_true", help=verbose)


def add_with_arguments(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--with-arguments", action="store_true", help=f"{purpose}: there may be secrets in them")


def positive(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no {what}")
    return int(text)


def same_file(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and os.path.realpath(one) == os.path.realpath(other)

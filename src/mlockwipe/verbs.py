# SPDX-License-Identifier: MIT
"""The verbs: parse, call, print; no logic.

A verb is imported when it is called, and only its own parser is built. The whole tree of parsers exists for
`mlockwipe --help` and for the shell completions.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from mlockwipe import __version__
from mlockwipe.errors import Refused
from mlockwipe.supervisor.options import Options

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


class _Parser(argparse.ArgumentParser):
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
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}; see '{self.prog} --help'", file=sys.stderr)
        raise SystemExit(USAGE)


class _Verb:
    """A verb's texts, its arguments and what it calls."""

    def __init__(
        self,
        summary: str,
        description: str,
        example: str,
        arguments: Callable[[argparse.ArgumentParser], None],
        call: Callable[[argparse.Namespace], int],
        usage: str | None = None,
    ) -> None:
        self.summary = summary
        self.description = description
        self.example = example
        self.arguments = arguments
        self.call = call
        self.usage = usage

    def parser(self, name: str) -> _Parser:
        parser = _Parser(f"mlockwipe {name}", self.description, f"example:\n{self.example}", self.usage)
        self.arguments(parser)
        return parser


class _Stdout:
    """What is printed within it arrives on stdout, or the reason why not is raised: Refused or
    BrokenPipeError. So is the reason why a file could not be used."""

    def __enter__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that has no such character

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if error is None and sys.stdout is not None:  # None when the caller closed it
                sys.stdout.flush()
        except OSError as failed:
            error = failed
        if isinstance(error, OSError) and error.filename is not None:
            raise Refused(f"{error.filename}: {error.strerror}") from error
        if isinstance(error, OSError):
            # The interpreter flushes stdout once more at its end, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if isinstance(error, BrokenPipeError):
                raise error
            raise Refused(f"writing to stdout failed: {error.strerror}") from error


def call(arguments: list[str]) -> int:
    """Do what a command line asks for: its exit status. A mistake in it ends with a SystemExit."""
    first = arguments[0] if arguments else ""
    if first in VERBS:
        verb = VERBS[first]
        return verb.call(verb.parser(first).parse_args(arguments[1:]))
    top = top_parser()
    if not first:
        top.error(f"no verb given: it is one of {', '.join(VERBS)}")
    if not first.startswith("-"):
        top.error(f"there is no verb '{first}': it is one of {', '.join(VERBS)}")
    top.parse_args(arguments[:1])  # prints and exits for --help and --version
    return top.error(f"the verb comes first, not '{first}'")


def top_parser() -> _Parser:
    verbs = "\n".join(f"  {name:<12}{verb.summary}" for name, verb in VERBS.items())
    parser = _Parser(
        "mlockwipe",
        "Zero a program's mlocked memory when it is released: munmap, exit, exec and SIGKILL included.",
        f"verbs:\n{verbs}\n\nexample:\n  mlockwipe run -- gpg-agent --daemon",
        usage="mlockwipe [--help] [--version] VERB ...",
    )
    parser.add_argument("--version", action="version", version=f"mlockwipe {__version__}")
    return parser


# run


def _run_arguments(parser: argparse.ArgumentParser) -> None:
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
    _telling_arguments(parser, "say what is attached and wiped")
    _command_arguments(parser)


def _telling_arguments(parser: argparse.ArgumentParser, verbose: str) -> None:
    parser.add_argument("--report", metavar="FILE.json", help="write there what was wiped and what could not be")
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("-q", "--quiet", action="store_true", help="say nothing but why mlockwipe itself failed")
    talk.add_argument("-v", "--verbose", action="store_true", help=verbose)


def _command_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")


def _command(verb: str, arguments: argparse.Namespace) -> list[str]:
    command: list[str] = arguments.command
    if command[:1] == ["--"]:  # REMAINDER keeps it; a later one belongs to the command
        del command[0]
    if not command:
        VERBS[verb].parser(verb).error("no command given")
    return command


def run_options(arguments: argparse.Namespace) -> Options:
    return Options(
        command=_command("run", arguments),
        strict=arguments.strict,
        unmap=not arguments.no_unmap,
        report=arguments.report,
        verbosity=arguments.verbose - arguments.quiet,
    )


def _run(arguments: argparse.Namespace) -> int:
    options = run_options(arguments)

    from mlockwipe.supervisor.front import run

    return run(options)


# audit


def _audit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fail", action="store_true", help="end with 3 when anything was left uncleared, for a CI")
    parser.add_argument("--json", metavar="FILE", help="write the findings there")
    parser.add_argument("--html", metavar="FILE", help="write them there as a page, with whole stacks")
    _command_arguments(parser)


def _same_file(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and os.path.realpath(one) == os.path.realpath(other)


def _audit(arguments: argparse.Namespace) -> int:
    command = _command("audit", arguments)
    if _same_file(arguments.json, arguments.html):
        VERBS["audit"].parser("audit").error("--json and --html name the same file")

    from mlockwipe.audit.command import audit

    return audit(command, fail=arguments.fail, json_file=arguments.json, html_file=arguments.html)


# attach


def _size(text: str) -> int:
    from mlockwipe.attach.size import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no {what}")
    return int(text)


def _pid(text: str) -> int:
    return _positive(text, "process id")


def _attach_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pids", nargs="*", type=_pid, metavar="PID", help="a process that runs")
    parser.add_argument(
        "--all", action="store_true", help="watch the machine for processes that hold locked memory, instead of PIDs"
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
    _telling_arguments(parser, "say what is wiped")


def _attach(arguments: argparse.Namespace) -> int:
    parser = VERBS["attach"].parser("attach")
    if arguments.all == bool(arguments.pids):
        parser.error("name either processes or --all")
    if not arguments.all and (arguments.policy is not None or arguments.min_locked is not None):
        parser.error("--policy and --min-locked belong to --all")

    from mlockwipe.attach.command import AttachOptions, attach

    return attach(
        AttachOptions(
            pids=list(dict.fromkeys(arguments.pids)),
            least=arguments.min_locked or 4096,
            policy=arguments.policy,
            all_memory=arguments.all_memory,
            report=arguments.report,
            verbosity=arguments.verbose - arguments.quiet,
        )
    )


# verify


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--carrier",
        action="append",
        choices=["none", "supervisor"],
        help="judge this carrier; may be given again (default: none and supervisor, side by side)",
    )
    parser.add_argument("--case", metavar="GLOB", default="*", help="only cases whose name matches, such as 'W7-*'")
    parser.add_argument("--all", action="store_true", help="a line for every case, not for every row of the contract")
    parser.add_argument(
        "--json", metavar="FILE", help="write the verdicts there, '-' for stdout instead of the table"
    )


def _verify(arguments: argparse.Namespace) -> int:
    from mlockwipe.contract import as_expected, print_table
    from mlockwipe.report_file import ReportFile
    from mlockwipe.verify import as_document, matching, verify_here

    cases = matching(arguments.case)
    if not cases:
        VERBS["verify"].parser("verify").error(f"no case matches '{arguments.case}'")
    carriers = list(dict.fromkeys(arguments.carrier or ["none", "supervisor"]))
    file = ReportFile(arguments.json) if arguments.json not in (None, "-") else None

    results = verify_here(carriers, cases)
    if file is not None:
        file.write(as_document(results))
    with _Stdout():
        if arguments.json == "-":
            print(as_document(results), end="")
        else:
            print_table(results, every_case=arguments.all)
    return 0 if all(as_expected(name, run) for name, run in results.items()) else 1


# lab


def _below(parser: argparse.ArgumentParser, name: str, verbs: "dict[str, _Verb]", dest: str = "what") -> None:
    """The verbs below one: `mlockwipe lab verify`. `dest`: the attribute that says which it is."""
    below = parser.add_subparsers(dest=dest, metavar="|".join(verbs), required=True, parser_class=_Parser)
    for what, verb in verbs.items():
        verb.arguments(
            below.add_parser(
                what,
                prog=f"mlockwipe {name} {what}",
                help=verb.summary,
                description=verb.description,
                epilog=f"example:\n{verb.example}",
            )
        )


def _machine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="NAME|PATH",
        help="boot debian-6.1, debian-6.12, patched-6.1, patched-6.12, unpatched-6.1, unpatched-6.12 or the bzImage "
        "at a path; may be given again (default: debian-6.1)",
    )
    parser.add_argument(
        "--carrier",
        action="append",
        choices=[*_CARRIERS, "boot-option", "module"],
        help="judge this carrier; may be given again (default: none, init_on_free and supervisor)",
    )


_CARRIERS = ["none", "init_on_free", "supervisor"]


def _kernels(arguments: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(arguments.kernel or ["debian-6.1"]))


def _carriers(arguments: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(arguments.carrier or _CARRIERS))


def _without(error: ModuleNotFoundError) -> Refused:
    return Refused(
        f"the lab needs the Python package of {error.name}: run `make lab-setup`, or pip install virtme-ng qemu.qmp"
    )


def _lab_verify_arguments(parser: argparse.ArgumentParser) -> None:
    _machine_arguments(parser)
    parser.add_argument("--case", metavar="GLOB", default="*", help="only cases whose name matches, such as 'W7-*'")
    parser.add_argument("--all", action="store_true", help="a line for every case, not for every row of the contract")
    parser.add_argument("--json", metavar="FILE", help="write the verdicts and what was found where")
    parser.add_argument("--html", metavar="DIR", help="write the matrix as pages for a browser")


def _lab_verify(arguments: argparse.Namespace) -> int:
    from mlockwipe.verify import matching

    if not matching(arguments.case):
        _lab_error("verify", f"no case matches '{arguments.case}'")
    try:
        from mlockwipe_lab.matrix.lab_verify import lab_verify
    except ModuleNotFoundError as error:
        raise _without(error) from error

    with _Stdout():
        return lab_verify(
            _kernels(arguments),
            _carriers(arguments),
            arguments.case,
            every_case=arguments.all,
            json_file=arguments.json,
            html=arguments.html,
        )


def _lab_keys_arguments(parser: argparse.ArgumentParser) -> None:
    _machine_arguments(parser)
    parser.add_argument(
        "--manager", metavar="GLOB", default="*", help="only key managers whose name matches, such as 'gpg-*'"
    )
    parser.add_argument("--json", metavar="FILE", help="write the verdicts and what was found where")


def _lab_keys(arguments: argparse.Namespace) -> int:
    from mlockwipe_lab.key_managers.registry import KEY_MANAGERS, matching

    managers = matching(arguments.manager)
    if not managers:
        known = ", ".join(manager.name for manager in KEY_MANAGERS)
        _lab_error("keys", f"no key manager matches '{arguments.manager}': there are {known}")
    try:
        from mlockwipe_lab.key_managers.lab_keys import lab_keys
    except ModuleNotFoundError as error:
        raise _without(error) from error

    with _Stdout():
        return lab_keys(_kernels(arguments), _carriers(arguments), managers, json_file=arguments.json)


def _rounds(text: str) -> int:
    rounds = _positive(text, "number of rounds")
    if rounds == 1:
        raise argparse.ArgumentTypeError("one round does not tell what is noise: take at least 2, and 5 for 95 %")
    return rounds


def _lab_bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--carrier",
        action="append",
        choices=["boot-option", "module"],
        help="measure this carrier; may be given again (default: boot-option)",
    )
    parser.add_argument(
        "--series",
        action="append",
        choices=["6.1", "6.12"],
        help="of this Linux; may be given again (default: 6.12)",
    )
    parser.add_argument(
        "--time",
        nargs="?",
        type=_rounds,
        const=7,
        metavar="ROUNDS",
        help="measure wall and system time instead of counting instructions, on KVM where there is any, with so many "
        "boots of each configuration (2 or more, default: 7); leave the machine alone meanwhile",
    )
    parser.add_argument("--json", metavar="FILE", help="write every measurement there")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there, too")


def _lab_bench(arguments: argparse.Namespace) -> int:
    if _same_file(arguments.json, arguments.markdown):
        _lab_error("bench", "--json and --markdown name the same file")
    try:
        from mlockwipe_lab.bench.guest.lab_bench import lab_bench
    except ModuleNotFoundError as error:
        raise _without(error) from error

    with _Stdout():
        return lab_bench(
            list(dict.fromkeys(arguments.carrier or ["boot-option"])),
            list(dict.fromkeys(arguments.series or ["6.12"])),
            rounds=arguments.time,
            json_file=arguments.json,
            markdown_file=arguments.markdown,
        )


def _lab_error(name: str, sentence: str) -> NoReturn:
    LAB[name].parser(f"lab {name}").error(sentence)


# kernel


def _series_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--series", choices=["6.1", "6.12"], default="6.12", help="for this Linux (default: 6.12)")
    parser.add_argument("--output", metavar="DIR", default=".", help="put the results there (default: here)")


def _kernel_patch(arguments: argparse.Namespace) -> int:
    from mlockwipe.kernel.command import kernel_patch

    with _Stdout():
        return kernel_patch(arguments.series, arguments.output)


def _kernel_build_arguments(parser: argparse.ArgumentParser) -> None:
    _series_arguments(parser)
    parser.add_argument(
        "--config",
        metavar="lab|debug|PATH",
        default="lab",
        help="a small kernel for the lab, that with the kernel's own checks, or your .config (default: lab)",
    )
    parser.add_argument("--source", metavar="DIR", help="these sources, which are patched, instead of Debian's")


def _kernel_build(arguments: argparse.Namespace) -> int:
    from mlockwipe.kernel.command import kernel_build

    with _Stdout():
        return kernel_build(arguments.series, arguments.config, arguments.source, arguments.output)


def _module_build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel", metavar="RELEASE", help="for this kernel, as uname -r says (default: the running)"
    )
    parser.add_argument("--headers", metavar="DIR", help="its headers (default: the installed, else Debian's)")
    parser.add_argument("--output", metavar="DIR", default=".", help="put the module there (default: here)")


def _module_build(arguments: argparse.Namespace) -> int:
    from mlockwipe.kernel.module_command import module_build

    with _Stdout():
        return module_build(arguments.kernel, arguments.headers, arguments.output)


def _module_change(arguments: argparse.Namespace) -> int:
    from mlockwipe.kernel.module_command import module_change

    with _Stdout():
        return module_change(arguments.module)


def _module_status(arguments: argparse.Namespace) -> int:
    from mlockwipe.kernel.module_command import module_status

    with _Stdout():
        return module_status(as_json=arguments.json)


def _module_status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON with a schema version instead of a table")


def _nothing(parser: argparse.ArgumentParser) -> None:
    """A verb without arguments."""


# completion


def _completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], metavar="bash|zsh|tcsh")


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    # shtab follows argparse's own tree of subparsers; call() goes without it.
    top = top_parser()
    subparsers = top.add_subparsers(metavar="VERB", parser_class=argparse.ArgumentParser)
    for name, verb in VERBS.items():
        parser = subparsers.add_parser(name, help=verb.summary)
        verb.arguments(parser)
        for action in _actions(parser):
            if action.metavar in ("FILE", "FILE.json"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar == "COMMAND":
                action.complete = {  # type: ignore[attr-defined]
                    "bash": "_mlockwipe_command",
                    "zsh": "_normal",
                    "tcsh": "c",
                }
    commands = '_mlockwipe_command() { compgen -c -A file -- "$1"; }' if arguments.shell == "bash" else ""
    with _Stdout():
        print(shtab.complete(top, arguments.shell, preamble=commands))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Its own, and those of the parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


# status


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON with a schema version instead of tables")


def _status(arguments: argparse.Namespace) -> int:
    from mlockwipe.status import inspect, to_json

    status = inspect()
    with _Stdout():
        if arguments.json:
            import json

            print(json.dumps(to_json(status), indent=2))
        else:
            from mlockwipe.status.table import print_status

            print_status(status)
    return 0


VERBS = {
    "run": _Verb(
        summary="run a program and wipe its locked memory whenever it is released",
        description="Run COMMAND so that every page that it or a descendant has mlocked and not munlocked "
        "is zeroed when it is released: by munmap, exit, exec or any death, SIGKILL included. The exit "
        "status is the command's own; 125 when mlockwipe itself failed, 126 when COMMAND can't be "
        "executed, 127 when it is not found.",
        example="  mlockwipe run --report wiped.json -- gpg-agent --daemon",
        arguments=_run_arguments,
        call=_run,
        usage="mlockwipe run [--strict] [--no-unmap] [--report FILE.json] [-q | -v] [--] COMMAND [ARG ...]",
    ),
    "audit": _Verb(
        summary="show which secrets a program did not clear, by call stack",
        description="Run COMMAND as `run` does, and tell of each range that it or a descendant has locked whether it "
        "was cleared: released or unlocked before it was, lost to a forked child, or never locked because the limit "
        "was reached; with the stacks of the calls, and how much was not zero, never the content. The exit status "
        "is the command's own, as in `run`.",
        example="  mlockwipe audit --fail --json findings.json -- python3 -m mywallet",
        arguments=_audit_arguments,
        call=_audit,
        usage="mlockwipe audit [--fail] [--json FILE] [--html FILE] [--] COMMAND [ARG ...]",
    ),
    "attach": _Verb(
        summary="cover programs that run already, until they end",
        description="From now on, what the processes PID and their descendants still have locked when they end, exec "
        "or are killed, SIGKILL included, is zeroed. Ctrl-C leaves them as they were. As root, or for processes of "
        "one's own where ptrace allows it. The exit status is 0 when all have ended or have been left, 125 when none "
        "could be attached to. docs/attach.md tells what is not covered.",
        example="  mlockwipe attach 1234",
        arguments=_attach_arguments,
        call=_attach,
        usage="mlockwipe attach [--all-memory] [--report FILE.json] [-q | -v] PID ...\n"
        "       mlockwipe attach --all [--min-locked SIZE] [--policy FILE] [--all-memory] [--report FILE.json] "
        "[-q | -v]",
    ),
    "verify": _Verb(
        summary="run the contract's cases on this machine and show what is left behind",
        description="Run every case of the contract and look at what the released pages really hold: "
        "without a carrier they must leak, under the supervisor they must be zero, and what is to be left "
        "alone must be whole. The exit status is 0 when every verdict is the expected one, else 1.",
        example="  mlockwipe verify --carrier supervisor --case 'W7-*' --json verdicts.json",
        arguments=_verify_arguments,
        call=_verify,
    ),
    "status": _Verb(
        summary="show what protects released secrets on this machine, and what doesn't",
        description="Show what protects released secrets on this machine, what doesn't and what to do about "
        "it, and which running processes hold locked memory and whether something will wipe it.",
        example="  mlockwipe status --json | jq '.checks[] | select(.state == \"bad\")'",
        arguments=_status_arguments,
        call=_status,
    ),
    "lab": _Verb(
        summary="virtual machines: the cases and real key managers, all memory searched; what the kernel's ways cost",
        description="Boot kernels in QEMU, stop the machine and search all of its memory from outside for what "
        "should be gone; or count the instructions of the boot option and the module. `make lab-setup` installs what "
        "is needed.",
        example="  mlockwipe lab verify --kernel debian-6.12 --carrier none --carrier supervisor --html matrix",
        arguments=lambda parser: _below(parser, "lab", LAB),
        call=lambda arguments: LAB[arguments.what].call(arguments),
    ),
    "kernel": _Verb(
        summary="init_mlocked_on_free, for the whole machine: as a boot option, and as a module",
        description="init_mlocked_on_free wipes the locked memory of every program on the machine: as a boot option "
        "of a kernel of your own (docs/kernel.md), or as a module for Debian's (docs/module.md).",
        example="  mlockwipe kernel build --series 6.12 --output build",
        arguments=lambda parser: _below(parser, "kernel", KERNEL),
        call=lambda arguments: KERNEL[arguments.what].call(arguments),
    ),
    "completion": _Verb(
        summary="print the completion script for a shell",
        description="Print a script that completes mlockwipe's verbs and options in bash, zsh or tcsh.",
        example="  mlockwipe completion bash > ~/.local/share/bash-completion/completions/mlockwipe",
        arguments=_completion_arguments,
        call=_completion,
    ),
}

LAB: dict[str, _Verb] = {
    "verify": _Verb(
        summary="run the contract's cases in virtual machines",
        description="Boot kernels in QEMU, run every case of the contract under each carrier, stop the machine and "
        "search all of its memory from outside for what should be gone. Without a carrier it must be found. The "
        "exit status is 0 when every verdict is the expected one, else 1. `make lab-setup` installs what is needed.",
        example=VERBS["lab"].example,
        arguments=_lab_verify_arguments,
        call=_lab_verify,
    ),
    "keys": _Verb(
        summary="kill real key managers while they hold a secret, and look for it",
        description="Boot kernels in QEMU, run each key manager that is installed under each carrier until its "
        "secret stands in memory, search all of it, kill the key manager with SIGKILL, and search again. The exit "
        "status is 0 when no carrier left anything in pages that were locked, or inherited from a process that had "
        "locked them, and without a carrier something was left there; else 1. What the program itself has copied to "
        "other memory is shown beside it. `make lab-setup` installs what the machines need.",
        example="  mlockwipe lab keys --manager 'gpg-*' --carrier none --carrier supervisor --json keys.json",
        arguments=_lab_keys_arguments,
        call=_lab_keys,
    ),
    "bench": _Verb(
        summary="count the instructions that the boot option or the module costs",
        description="Boot the kernel with the boot option init_mlocked_on_free off and on, and the same kernel "
        "without the patches, with init_on_free and with init_on_alloc; or Debian's kernel without the module, with "
        "it off and on, and with these. Count the instructions that munmap, exit, fork and exec take there, and real "
        "programs: hackbench, gcc, gpg, memcached and a web service, of this machine. They are counted by QEMU, so "
        "it does not matter what else this machine does. What is not in the cache is built first. Where a guest "
        "fails, the others of its carrier and series end with it, and the rest is counted and written. The exit "
        "status is 0 when all was counted, else 1.",
        example="  mlockwipe lab bench --carrier module --series 6.12 --json costs.json",
        arguments=_lab_bench_arguments,
        call=_lab_bench,
    ),
}

KERNEL: dict[str, _Verb] = {
    "patch": _Verb(
        summary="write the patch series",
        description="Write the patches that give Linux the boot option, with their cover letter, for `git am`.",
        example="  mlockwipe kernel patch --series 6.1 --output series",
        arguments=_series_arguments,
        call=_kernel_patch,
    ),
    "build": _Verb(
        summary="build a kernel with the series",
        description="Fetch Debian's sources of Linux into the cache, apply the series, configure and compile there; "
        "the next build compiles what changed. `mlockwipe lab verify --kernel patched-6.12` does so by itself.",
        example=VERBS["kernel"].example,
        arguments=_kernel_build_arguments,
        call=_kernel_build,
    ),
    "module": _Verb(
        summary="the same as a module, for Debian's own kernels",
        description="The module init_mlocked_on_free wipes the locked memory of every program on the machine, on "
        "Debian's kernels of Linux 6.1 and 6.12. docs/module.md tells how, and its limits.",
        example="  mlockwipe kernel module install",
        arguments=lambda parser: _below(parser, "kernel module", MODULE, "module"),
        call=lambda arguments: MODULE[arguments.module].call(arguments),
    ),
}

MODULE: dict[str, _Verb] = {
    "build": _Verb(
        summary="build the module",
        description="Build the module for a kernel from its headers, which are fetched into the cache when they are "
        "not installed. Nothing is installed.",
        example="  mlockwipe kernel module build --kernel 6.12.117+deb12-amd64 --output build",
        arguments=_module_build_arguments,
        call=_module_build,
    ),
    "install": _Verb(
        summary="install the module through DKMS, for this kernel and those to come",
        description="Install the module through DKMS, which builds it anew for every kernel that is installed later. "
        "It is not loaded. Needs root, dkms and the headers of the running kernel.",
        example="  mlockwipe kernel module install",
        arguments=_nothing,
        call=_module_change,
    ),
    "enable": _Verb(
        summary="load the module and switch it on, now and at every boot",
        description="Load the module and switch it on, now and, by files in /etc/modules-load.d and /etc/modprobe.d, "
        "at every boot. Needs root.",
        example="  mlockwipe kernel module enable",
        arguments=_nothing,
        call=_module_change,
    ),
    "disable": _Verb(
        summary="switch the module off, now and at every boot",
        description="Switch the module off and remove the files that `enable` made. It stays loaded. Needs root.",
        example="  mlockwipe kernel module disable",
        arguments=_nothing,
        call=_module_change,
    ),
    "status": _Verb(
        summary="show whether the module is installed, loaded and on, and what it has wiped",
        description="Show whether the module is installed, loaded and on, what it has wiped, and why a load would be "
        "refused.",
        example="  mlockwipe kernel module status --json | jq .counters.wiped",
        arguments=_module_status_arguments,
        call=_module_status,
    ),
    "uninstall": _Verb(
        summary="switch the module off, unload it and remove it",
        description="Switch the module off, unload it, and remove it from DKMS and from this machine. Needs root.",
        example="  mlockwipe kernel module uninstall",
        arguments=_nothing,
        call=_module_change,
    ),
}

# SPDX-License-Identifier: MIT
"""The verbs of the command line, one file each: its texts, its arguments and its call.

A verb is imported when it is called, and only its own parser is built. `mlockwipe --help`, the shell completions and
the manual pages import them all.
"""

from importlib import import_module

from mlockwipe import __version__
from mlockwipe.verbs.parser import Parser, Verb

# In the order of `mlockwipe --help`. Each module has its verb as VERB.
VERBS = {
    "run": "mlockwipe.verbs.run",
    "exec": "mlockwipe.verbs.exec",
    "serve": "mlockwipe.verbs.serve",
    "oci": "mlockwipe.verbs.oci",
    "audit": "mlockwipe.verbs.audit",
    "attach": "mlockwipe.verbs.attach",
    "verify": "mlockwipe.verbs.verify",
    "status": "mlockwipe.verbs.status",
    "lab": "mlockwipe.verbs.lab",
    "kernel": "mlockwipe.verbs.kernel",
    "completion": "mlockwipe.verbs.completion",
}


def load(name: str) -> Verb:
    verb: Verb = import_module(VERBS[name]).VERB
    return verb


def call(arguments: list[str]) -> int:
    """Do what a command line asks for: its exit status. A mistake in it ends with a SystemExit."""
    first = arguments[0] if arguments else ""
    if first in VERBS:
        verb = load(first)
        return verb.call(verb.parser().parse_args(arguments[1:]))
    top = top_parser()
    if not first:
        top.error(f"no verb given: it is one of {', '.join(VERBS)}")
    if not first.startswith("-"):
        top.error(f"there is no verb '{first}': it is one of {', '.join(VERBS)}")
    top.parse_args(arguments[:1])  # prints and exits for --help and --version
    return top.error(f"the verb comes first, not '{first}'")


def top_parser() -> Parser:
    verbs = "\n".join(f"  {name:<12}{load(name).summary}" for name in VERBS)
    parser = Parser(
        "mlockwipe",
        "Zero a program's mlocked memory when it is released: munmap, exit, exec and SIGKILL included.",
        f"verbs:\n{verbs}\n\nexample:\n  mlockwipe run -- gpg-agent --daemon",
        usage="mlockwipe [--help] [--version] VERB ...",
    )
    parser.add_argument("--version", action="version", version=f"mlockwipe {__version__}")
    return parser

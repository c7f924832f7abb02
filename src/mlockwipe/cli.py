# SPDX-License-Identifier: MIT
"""The command `mlockwipe`: its exit status whatever happens, and the start of `run`.

`mlockwipe run` stands in front of programs that are started often, so its start must cost little. What it needs is
all that is imported here: its plain options are read by hand, and the parsers in mlockwipe.verbs, which know the rest
and what to say about mistakes, are loaded by those who need them.
"""

import os
import sys

from mlockwipe.errors import Refused
from mlockwipe.supervisor.options import Options
from mlockwipe.suppress import suppress

TYPE_CHECKING = False  # typing's own constant costs the import of typing, 3 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 125  # as env, timeout and nohup say that they, not the command, failed


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run the command line `argv` (without the program's name) and return its exit status.

    None stands for the command line of this process, which then ends with `run`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _occupy_standard_streams()
    status = _status(arguments)
    if argv is None and arguments[:1] == ["run"]:
        _end(status)
    return status


def _occupy_standard_streams() -> None:
    """Nothing that we open may be taken for a stdin, stdout or stderr that the caller has closed. What is put in its
    place can be neither read nor written, and a command that is executed finds it closed."""
    with suppress(OSError):
        while (fd := os.open("/", os.O_PATH | os.O_CLOEXEC)) <= 2:
            pass
        os.close(fd)


def _status(arguments: list[str]) -> int:
    try:
        return _call(arguments)
    except Refused as refusal:
        _say(str(refusal))
    except BrokenPipeError:  # `mlockwipe status | head`: the reader has seen enough
        return 128 + 13
    except KeyboardInterrupt:
        return 128 + 2
    except Exception:
        # A defect of ours. Python would end with 1, which a caller must take for the program's own status.
        import traceback

        for line in traceback.format_exc().splitlines():
            _say(line)
        _say("this is a defect of mlockwipe; please report the lines above")
    return FAILED


def _say(text: str) -> None:
    from mlockwipe.messages import say

    say(text)


def _call(arguments: list[str]) -> int:
    if arguments[:1] == ["run"]:
        options = plain_options(arguments[1:])
        if options is not None:
            from mlockwipe.supervisor.front import run

            return run(options)
    from mlockwipe import verbs

    return verbs.call(arguments)


def _end(status: int) -> None:
    """End this process now. The interpreter would first take itself to pieces, for 10 ms and for nothing."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is when the caller closed it
            with suppress(OSError):
                stream.flush()
    os._exit(status)


def plain_options(words: list[str]) -> Options | None:
    """The options of `run`, if they are written plainly; None leaves the words to the parser in mlockwipe.verbs."""
    options = Options(command=[])
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word == "--strict":
            options.strict = True
        elif word == "--no-unmap":
            options.unmap = False
        elif word == "--with-arguments":
            options.with_arguments = True
        elif word in ("-q", "--quiet") and options.verbosity <= 0:
            options.verbosity = -1
        elif word in ("-v", "--verbose") and options.verbosity >= 0:
            options.verbosity = 1
        elif word == "--report" and rest and not rest[0].startswith("-"):
            options.report = rest.pop(0)
        elif word.startswith("--report="):
            options.report = word.removeprefix("--report=")
        else:
            return None
    options.command = rest
    return options if rest else None

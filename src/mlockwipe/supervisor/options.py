# SPDX-License-Identifier: MIT
"""What `mlockwipe run` was asked for."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mlockwipe.tracing.observer import Observer

    Watch = Callable[[Callable[[str, str], None]], Observer]


class Options:
    """`verbosity`: -1 says only why a command can't be run, 0 what could not be protected, 1 a summary too.
    `watch`: makes an observer of the programs, in the supervisor, from a way to tell the user something once for a
    key; the run lasts until the last descendant has ended then.
    """

    def __init__(
        self,
        command: list[str],
        *,
        strict: bool = False,
        unmap: bool = True,
        report: str | None = None,
        watch: "Watch | None" = None,
        verbosity: int = 0,
    ) -> None:
        self.command = command
        self.strict = strict
        self.unmap = unmap
        self.report = report
        self.watch = watch
        self.verbosity = verbosity

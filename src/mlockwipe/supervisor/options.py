# SPDX-License-Identifier: MIT
"""What `mlockwipe run` was asked for."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mlockwipe.report_file import ReportFile
    from mlockwipe.tracing.observer import Observer

    Watch = Callable[[Callable[[str, str], None]], Observer]


class Options:
    """`verbosity`: -1 says only why a command can't be run, 0 what could not be protected, 1 a summary too.
    `watch`: makes an observer of the programs, in the supervisor, from a way to tell the user something once for a
    key; the run lasts until the last descendant has ended then. `with_arguments`: a report tells them, too.
    """

    files: "tuple[ReportFile, ...]" = ()  # opened for `report`, or for what the observer finds

    def __init__(
        self,
        command: list[str],
        *,
        strict: bool = False,
        unmap: bool = True,
        report: str | None = None,
        with_arguments: bool = False,
        watch: "Watch | None" = None,
        verbosity: int = 0,
    ) -> None:
        self.command = command
        self.strict = strict
        self.unmap = unmap
        self.report = report
        self.with_arguments = with_arguments
        self.watch = watch
        self.verbosity = verbosity

    @property
    def report_file(self) -> "ReportFile | None":
        return None if self.report is None else self.files[0]

    @property
    def descriptors(self) -> set[int]:
        """Of what is to be written in the end, and so is not to be closed."""
        return {fd for file in self.files for fd in file.descriptors}

    @property
    def told(self) -> list[str]:
        """The command for a report, which more people see, and longer, than see a passphrase among the arguments."""
        return self.command if self.with_arguments else self.command[:1]

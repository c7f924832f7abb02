# SPDX-License-Identifier: MIT
"""What `mlockwipe run` was asked for."""


class Options:
    """`verbosity`: -1 says only why a command can't be run, 0 what could not be protected, 1 a summary too.
    `audit`: a file for what mlockwipe.audit finds; the run lasts until the last descendant has ended then.
    """

    def __init__(
        self,
        command: list[str],
        *,
        strict: bool = False,
        unmap: bool = True,
        report: str | None = None,
        audit: str | None = None,
        verbosity: int = 0,
    ) -> None:
        self.command = command
        self.strict = strict
        self.unmap = unmap
        self.report = report
        self.audit = audit
        self.verbosity = verbosity

# SPDX-License-Identifier: MIT
"""What the supervisor did: counts for `--report`, and what it tells the user, each thing once."""

from mlockwipe.tracing.counts import Counts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mlockwipe.report_file import ReportFile

SCHEMA = 1


class Report:
    """Of one run."""

    def __init__(self, command: list[str], file: "ReportFile | None") -> None:
        """`command`: as much of it as may be told."""
        self.command = command
        self._file = file
        self._is_final = False  # the file: nothing is left that could change it
        self.status: dict[str, int] | None = None
        self.counts = Counts()

    def as_json(self, *, final: bool) -> "dict[str, Any]":
        return {
            "schema": SCHEMA,
            "command": self.command,
            "final": final,
            "status": self.status,
            "processes_attached": self.counts.attached,
            "pages_wiped": dict(sorted(self.counts.wiped.items())),
            "unprotected": [
                {"program": program, "reason": reason, "times": times}
                for (program, reason), times in sorted(self.counts.unprotected.items())
            ],
        }

    def summary(self) -> str:
        """One sentence."""
        causes = ", ".join(f"{cause} {pages}" for cause, pages in sorted(self.counts.wiped.items()))
        return (
            f"processes attached: {self.counts.attached}; pages wiped: {sum(self.counts.wiped.values())}"
            + (f" ({causes})" if causes else "")
            + f"; could not be protected: {sum(self.counts.unprotected.values())}"
        )

    def write(self, *, final: bool) -> None:
        """Replace the report file by the present state. OSError when that can't be.

        What goes to stdout can't be replaced, so it is the last state alone.
        """
        if self._file is None or self._is_final or (self._file.is_stream and not final):
            return
        self._is_final = final
        import json

        self._file.replace(json.dumps(self.as_json(final=final), indent=2) + "\n")

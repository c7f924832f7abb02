# SPDX-License-Identifier: MIT
"""What the supervisor did: counts for `--report`, and what it tells the user, each thing once."""

import os

from mlockwipe.suppress import suppress
from mlockwipe.tracing.counts import Counts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1


class Report:
    """Of one run."""

    def __init__(self, command: list[str], path: str | None) -> None:
        self.command = command
        self.path = path
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
        """Replace the report file by the present state; a reader sees the old one or the new one, whole. Its mode
        stays.
        """
        if self.path is None:
            return
        import json

        temporary = f"{self.path}.{os.getpid()}"
        try:
            with open(temporary, "w", encoding="utf-8", opener=_private) as file:
                with suppress(OSError):  # a file system without modes
                    os.fchmod(file.fileno(), _mode(self.path))
                json.dump(self.as_json(final=final), file, indent=2)
                file.write("\n")
            os.replace(temporary, self.path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _mode(path: str) -> int:
    """Of a report that somebody has taken away meanwhile: for the user alone."""
    try:
        return os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        return 0o600

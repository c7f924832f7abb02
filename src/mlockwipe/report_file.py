# SPDX-License-Identifier: MIT
"""A file that a user has named for a report."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mlockwipe.errors import Refused


class ReportFile:
    """A file that is found to be writable before the work begins, and written after them.

    Raises Refused, in both. Until it is written, a file of that name keeps its content.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        with self._refusing():
            self.path = self.path.absolute()  # the working directory may be another by then, or is gone already
            self.path.open("a", encoding="utf-8").close()

    def write(self, text: str) -> None:
        with self._refusing():
            self.path.write_text(text, encoding="utf-8", errors="backslashreplace")

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Refused(
                f"the report {self.path} can't be written ({error.strerror}): name a file that you may write"
            ) from error

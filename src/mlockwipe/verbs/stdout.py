# SPDX-License-Identifier: MIT
"""What a verb prints: it arrives, or the reason why not is raised."""

import io
import os
import sys

from mlockwipe.errors import Refused


class Stdout:
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

# SPDX-License-Identifier: MIT
"""The key with which gpg is measured."""

import os
import subprocess

from mlockwipe.errors import Refused


def make_gpg_key(home: str) -> None:
    """A key named bench, without a passphrase, in a directory for gpg alone. Raises Refused."""
    environment = {**os.environ, "GNUPGHOME": home}
    key = ("--quick-generate-key", "bench", "future-default", "default", "never")
    for command in (
        ["gpg", "--batch", "--quiet", "--passphrase", "", *key],
        ["gpg", "--batch", "--quiet", "--check-trustdb"],  # or the first that is measured does it
        ["gpgconf", "--kill", "gpg-agent"],
    ):
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ran.returncode:
            raise Refused(f"{command[0]} makes no key: status {ran.returncode}; {ran.stderr.strip()}")

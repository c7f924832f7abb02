# SPDX-License-Identifier: MIT
"""Programs that people run: gpg with its agent, and Python with all its memory locked."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import limits
from runner import Runner
from sampling import Figure, Rounds

_HERE = Path(__file__).parent
_SIGNED = 10
_EXECUTED = 100


def gpg(run: Runner) -> list[Figure]:
    for program in ("gpg", "gpg-agent", "gpgconf"):
        if shutil.which(program) is None:
            raise limits.Skipped(f"{program} is not installed: apt-get install gnupg")
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:  # short: the agent's sockets lie in it
        environment = {"GNUPGHOME": home}
        _make_key(environment)
        command = "/bin/sh", str(_HERE / "gpg_loop.sh"), str(_SIGNED)
        rounds = Rounds.interleave(
            {
                "bare": lambda: run.bare(*command, environment=environment),
                "mlockwipe": lambda: run.supervised(*command, environment=environment),
            },
            run.rounds,
        )
    return [
        Figure(
            "gpg",
            "gpg --sign --encrypt with gpg-agent",
            "x",
            rounds.ratio("mlockwipe", "bare", "gpg"),
            rounds.medians("gpg"),
        )
    ]


def _make_key(environment: dict[str, str]) -> None:
    variables = {**os.environ, **environment}
    key = ("--quick-generate-key", "bench", "future-default", "default", "never")
    for command in (
        ["gpg", "--batch", "--quiet", "--passphrase", "", *key],
        ["gpg", "--batch", "--quiet", "--check-trustdb"],  # or the first that is timed does it
        ["gpgconf", "--kill", "gpg-agent"],
    ):
        subprocess.run(command, env=variables, capture_output=True, check=True)


def python(run: Runner) -> list[Figure]:
    limits.need(256 << 20)
    command = sys.executable, str(_HERE / "python_loop.py"), str(_EXECUTED), run.program("fork_exec")
    rounds = Rounds.interleave(
        {"bare": lambda: run.bare(*command), "mlockwipe": lambda: run.supervised(*command)}, run.rounds
    )
    return [
        Figure(
            "python",
            "subprocess.run from Python with all its memory locked",
            "x",
            rounds.ratio("mlockwipe", "bare", "subprocess"),
            rounds.medians("subprocess"),
        )
    ]

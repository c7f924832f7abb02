# SPDX-License-Identifier: MIT
"""ssh-agent: undumpable, and never locks. It is attached in case it will, notices nothing, and nothing is wiped."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import Outcome, run_bare, run_supervised
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody, nobody

pytestmark = pytest.mark.needs_program("ssh-agent", "openssh-client")

# Whose /proc/PID/environ is says whether a process may be dumped: of one that may not, it is root's.
SESSION = """
set -eu
directory=$(mktemp -d)
cd "$directory"
eval "$(ssh-agent -s -a "$directory/agent")" >/dev/null
stat -c %u "/proc/$SSH_AGENT_PID/environ"
ssh-keygen -q -t ed25519 -N "" -C key -f key
ssh-add -q key
rm key
ssh-add -L | cut -d " " -f 3
echo message | ssh-keygen -q -Y sign -n file -f key.pub >signature 2>err
echo message | ssh-keygen -Y check-novalidate -n file -s signature 2>&1 | cut -d " " -f 1-2
ssh-agent -k >/dev/null
"""
SAID = '0\nkey\nGood "file"\n'


@pytest.fixture
def home() -> Iterator[Path]:
    # The path of the agent's socket must be short; that of tmp_path is not.
    with tempfile.TemporaryDirectory(prefix="ssh-", dir="/tmp") as directory:
        yield Path(directory)


def test_an_agent_that_never_locks_is_left_alone(home: Path) -> None:
    command, env = ["sh", "-c", SESSION], {"TMPDIR": str(home)}
    _left_alone(run_bare(command, env=env), run_supervised(command, env=env))


@needs_nobody
def test_an_agent_that_an_unprivileged_user_may_not_trace_is_left_alone(home: Path) -> None:
    os.chown(home, nobody().pw_uid, nobody().pw_gid)
    command, env = ["sh", "-c", SESSION], {"TMPDIR": str(home), "HOME": str(home)}
    with mlockwipe_for_nobody() as mlockwipe:
        supervised = run_supervised(command, env=env, mlockwipe=[*AS_NOBODY, *mlockwipe], cwd="/")
    _left_alone(run_bare([*AS_NOBODY, *command], env=env, cwd="/"), supervised)


def _left_alone(bare: Outcome, supervised: Outcome) -> None:
    assert bare.result == (0, SAID), bare.err
    assert supervised.result == bare.result, supervised.err
    assert supervised.report["pages_wiped"] == {}
    assert supervised.report["unprotected"] == []

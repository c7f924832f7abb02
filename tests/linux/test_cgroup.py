# SPDX-License-Identifier: MIT
"""Bringing a process from another control group into our own, in each hierarchy of this machine."""

import os
import signal
from pathlib import Path

import pytest

from mlockwipe.linux import cgroup
from tests.support.traced import child


def mounted() -> list[Path]:
    lines = (line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [Path(fields.split()[4]) for fields, rest in lines if rest.startswith("cgroup")]


@pytest.mark.parametrize("hierarchy", mounted(), ids=lambda path: path.name)
def test_a_process_joins_our_groups(hierarchy: Path) -> None:
    group = hierarchy / f"mlockwipe-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        with child(signal.pause) as pid:
            ours = Path("/proc/self/cgroup").read_text()
            if hierarchy.name == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (group / file).write_text((hierarchy / file).read_text())
            (group / "cgroup.procs").write_text(str(pid))
            assert Path(f"/proc/{pid}/cgroup").read_text() != ours
            cgroup.join_ours(pid)
            assert Path(f"/proc/{pid}/cgroup").read_text() == ours
    finally:
        group.rmdir()


def test_one_that_is_gone_joins_nothing() -> None:
    with child(lambda: None) as pid:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        cgroup.join_ours(pid)
    cgroup.join_ours(pid)

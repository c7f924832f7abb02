# SPDX-License-Identifier: MIT
"""Real container runtimes, whose containers know nothing of mlockwipe, killed by force."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlockwipe.containers.profile import for_runtime, profile
from mlockwipe.contract.witness import Witness, witness
from tests.support.attaching import PART, Obedient
from tests.support.c_programs import compiled
from tests.support.running import TIMEOUT, marked
from tests.support.serving import Service, serving

pytestmark = [
    pytest.mark.needs_gcc("gcc libc6-dev", "-static"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: for containers with cgroups and devices of their own"),
]

WITNESS = 3  # its descriptor in a container


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as found:
        yield found


@pytest.fixture
def root() -> Iterator[Path]:
    """The root file system of a container: one program. Podman wants a short path."""
    with tempfile.TemporaryDirectory(prefix="mlockwipe-") as directory:
        root = Path(directory, "rootfs")
        root.mkdir()
        shutil.copy(compiled("obedient", "-static"), root / "obedient")
        yield root


def seccomp(service: Service) -> dict[str, Any]:
    """The profile; with vmsplice, which the witness needs and Podman's own forbids."""
    document: dict[str, Any] = json.loads(profile(None, service.socket))
    for rule in document["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "vmsplice"]
    document["syscalls"].append({"names": ["vmsplice"], "action": "SCMP_ACT_ALLOW"})
    return document


def resolved(document: dict[str, Any]) -> dict[str, Any]:
    """As runc takes it; `listenerPath` may be missing."""
    found: dict[str, Any] = json.loads(for_runtime(json.dumps({"listenerPath": None, **document})))
    return found


class Container(Obedient):
    """A container in which the obedient program is process 1."""

    def __init__(self, seen: Witness, command: list[str], environment: dict[str, str]) -> None:
        self._seen = seen
        spare = fcntl.fcntl(seen.write_end, fcntl.F_DUPFD, WITNESS + 1)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            preexec_fn=lambda: os.dup2(spare, WITNESS),
            pass_fds=(WITNESS,),
        )
        os.close(spare)
        self.pid = self.process.pid
        if self.answer() != "ready":
            raise AssertionError(self.process.communicate(timeout=TIMEOUT)[1].decode())


def runc(root: Path, document: dict[str, Any], name: str) -> list[str]:
    """The command that runs a container; it has /dev, /proc and the like of `runc spec`."""
    bundle = root.parent
    if not (bundle / "config.json").exists():
        subprocess.run(["runc", "spec", "-b", str(bundle)], check=True, timeout=TIMEOUT)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/obedient", str(WITNESS), "1"]
    config["linux"]["seccomp"] = resolved(document)
    (bundle / "config.json").write_text(json.dumps(config))
    return ["runc", "run", "--preserve-fds", "1", "-b", str(bundle), name]


def podman(root: Path, document: dict[str, Any], name: str) -> list[str]:
    (root.parent / "seccomp.json").write_text(json.dumps(document))
    return [
        "podman", "--root", str(root.parent / "podman"), "--runroot", str(root.parent / "run"), "--runtime", "runc",
        "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "run", "--rm", "-i", "--name", name,
        "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--preserve-fds", "1",
        "--security-opt", f"seccomp={root.parent}/seccomp.json", "--rootfs", str(root),
        "/obedient", str(WITNESS), "1",
    ]  # fmt: skip


def kill(command: list[str], name: str, *, every: bool) -> None:
    at = command.index("run")
    options = ["-a"] if every and command[0] == "runc" else []
    subprocess.run(
        [*command[:at], "kill", *options, name, "KILL"]
        if command[0] == "runc"
        else [*command[:at], "kill", "-s", "KILL", name],
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("every", [False, True], ids=["process 1", "all"])
@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param(runc, marks=pytest.mark.needs_program("runc", "runc")),
        pytest.param(
            podman, marks=[pytest.mark.needs_program("podman", "podman"), pytest.mark.needs_program("runc", "runc")]
        ),
    ],
)
@pytest.mark.parametrize("handed_over", [True, False])
def test_a_container_that_is_killed(
    service: Service, root: Path, runtime: Any, every: bool, handed_over: bool
) -> None:
    """With the profile no page is left; without its listener, the negative control, all are."""
    document = seccomp(service)
    if not handed_over:
        del document["listenerPath"]
        document["syscalls"] = [
            {**rule, "action": rule["action"].replace("NOTIFY", "ALLOW")} for rule in document["syscalls"]
        ]
    for _ in range(3):
        name = f"mlockwipe-test-{uuid.uuid4().hex[:12]}"
        command = runtime(root, document, name)
        with marked() as processes, witness() as seen:
            program = Container(seen, command, processes.environment)
            try:
                kill(command, name, every=every)
                assert program.end() == 137
                if handed_over:
                    service.await_idle()
                pages = program.look()
                assert (pages.total, pages.dirty) == (PART, 0 if handed_over else PART)
            finally:
                with suppress(ProcessLookupError):
                    program.process.kill()
                program.process.communicate(timeout=TIMEOUT)

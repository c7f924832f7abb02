# SPDX-License-Identifier: MIT
"""The workloads of real programs: they do their work bare and supervised, and what is wrong or missing is said."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mlockwipe import LockedBuffer
from mlockwipe.errors import Refused
from mlockwipe_lab.bench.host import limits, program_costs
from mlockwipe_lab.bench.programs import PROGRAMS, load, memcached_load, web_load
from mlockwipe_lab.bench.programs.gpg_key import make_gpg_key
from mlockwipe_lab.bench.programs.web_service import Service
from tests.support.c_programs import needs_gcc
from tests.support.running import Outcome, run_bare, run_supervised

MEMCACHED = sys.executable, str(PROGRAMS / "memcached_load.py"), "3"
WEB = sys.executable, str(PROGRAMS / "web_load.py"), "3"
HACKBENCH = "/bin/sh", str(PROGRAMS / "hackbench.sh"), "10"
needs_memcached = pytest.mark.needs_program("memcached", "memcached")
needs_hackbench = pytest.mark.needs_program("hackbench", "rt-tests")
needs_gpg = pytest.mark.needs_program("gpg", "gnupg")


def times(outcome: Outcome) -> dict[str, list[float]]:
    """What a workload has printed, that said and did nothing else."""
    assert (outcome.status, outcome.err) == (0, "")
    found: dict[str, list[float]] = {}
    for line in outcome.out.splitlines():
        name, value = line.split()
        found.setdefault(name, []).append(float(value))
    assert all(value > 0 for values in found.values() for value in values)
    return found


def both(command: Sequence[str], *, locks: bool) -> list[dict[str, int]]:
    """How many times of each name there are, bare and supervised. Supervised, it must lock memory or not."""
    supervised = run_supervised(command)
    assert bool(supervised.report["processes_attached"]) is locks
    assert not supervised.report["unprotected"]
    return [
        {name: len(values) for name, values in times(outcome).items()} for outcome in (run_bare(command), supervised)
    ]


def bench(name: str, **environment: str) -> tuple[int, dict[str, str]]:
    """Make a measurement: the exit status, and why it was not made."""
    with tempfile.TemporaryDirectory() as directory:
        document = Path(directory, "figures.json")
        done = subprocess.run(
            [sys.executable, "-m", "mlockwipe_lab.bench.host", "--quick", "--only", name, "--json", str(document)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        missing: dict[str, str] = json.loads(document.read_text())["missing"]
        assert all(f"\n{name}: {reason[:7]}" in done.stdout for name, reason in missing.items())
        return done.returncode, missing


@needs_memcached
def test_memcached_locks_its_memory_and_gives_back_what_it_was_given() -> None:
    try:
        limits.need(256 << 20)
    except limits.Skipped as reason:
        pytest.skip(str(reason))
    assert both(MEMCACHED, locks=True) == [{"memcached": 3}] * 2


def test_a_web_service_has_its_key_in_locked_memory_and_signs_with_it() -> None:
    assert both(WEB, locks=True) == [{"web": 3}] * 2


@needs_hackbench
def test_hackbench_locks_nothing() -> None:
    assert both(HACKBENCH, locks=False) == [{"hackbench": 1}] * 2


@needs_gpg
def test_gpg_signs_encrypts_and_decrypts() -> None:
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        make_gpg_key(home)
        command = "env", f"GNUPGHOME={home}", "/bin/sh", str(PROGRAMS / "gpg_loop.sh"), "2"
        assert both(command, locks=True) == [{"seal": 1, "unseal": 1}] * 2


@needs_gpg
def test_gpg_without_a_key_is_no_result() -> None:
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        outcome = run_bare(["env", f"GNUPGHOME={home}", "/bin/sh", str(PROGRAMS / "gpg_loop.sh"), "2"])
    assert outcome.status != 0
    assert outcome.out == ""


def build_command(tree: Path, output: Path, directory: str) -> tuple[str, ...]:
    return "/bin/sh", str(PROGRAMS / "kernel_build.sh"), str(tree), str(output), directory


def test_a_directory_of_linux_is_compiled_anew_each_time(tmp_path: Path) -> None:
    try:
        tree = program_costs.kernel_tree()
    except limits.Skipped as reason:
        pytest.skip(str(reason))
    output = tmp_path / "linux"
    program_costs.configure_kernel(tree, output)
    command = build_command(tree, output, "lib/math")
    times(run_bare(command))
    first = (output / "lib/math/gcd.o").stat()
    assert both(command, locks=False) == [{"build": 1}] * 2
    assert (output / "lib/math/gcd.o").stat().st_mtime_ns > first.st_mtime_ns


@pytest.mark.parametrize("recipe", ["false", "true"], ids=["an error", "nothing compiled"])
def test_a_build_that_does_not_succeed_is_no_result(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"kernel/time/:\n\t@{recipe}\n")
    outcome = run_bare(build_command(tmp_path, tmp_path / "output", "kernel/time"))
    assert outcome.status != 0
    assert outcome.out == ""


def test_the_newest_sources_are_built_and_rather_without_the_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_costs, "check_tools", lambda: None)
    monkeypatch.setattr(program_costs, "cache", lambda: tmp_path)
    with pytest.raises(limits.Skipped, match="'mlockwipe kernel build' fetches them"):
        program_costs.kernel_tree()
    for name in ("linux-source-6.1_6.1.192-2", "unpatched-linux-source-6.1_6.1.192-2", "linux-source-6.12_6.12.9-1"):
        (tmp_path / name).mkdir()
    assert program_costs.kernel_tree().name == "linux-source-6.12_6.12.9-1"
    (tmp_path / "unpatched-linux-source-6.12_6.12.9-1").mkdir()
    assert program_costs.kernel_tree().name == "unpatched-linux-source-6.12_6.12.9-1"


# What is missing and what is wrong


@needs_gcc
@pytest.mark.parametrize(
    ("name", "program", "package"),
    [("memcached", "memcached", "memcached"), ("hackbench", "hackbench", "rt-tests"), ("gpg", "gpg", "gnupg")],
)
def test_a_program_that_is_not_installed_is_skipped_with_its_package(
    name: str, program: str, package: str, tmp_path: Path
) -> None:
    compiler = "gcc", "as", "ld"
    for tool in compiler:
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    reason = f"skipped: {program} is not installed: apt-get install {package}"
    assert bench(name, PATH=str(tmp_path)) == (0, {name: reason})


@needs_gcc
def test_a_kernel_without_sources_is_skipped(tmp_path: Path) -> None:
    status, missing = bench("kernel-build", XDG_CACHE_HOME=str(tmp_path))
    assert status == 0
    assert missing["kernel-build"].startswith("skipped: ")


@needs_gcc
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'hackbench: fork (error: no memory)' >&2; exit 1", "status 1; hackbench: fork (error: no memory)"),
        ("echo warning >&2; echo Time: 0.1", "status 0; warning"),
        ("echo Running in process mode", "said no times"),
    ],
)
def test_a_program_that_does_not_work_breaks_the_measurement(script: str, reason: str, tmp_path: Path) -> None:
    broken = tmp_path / "hackbench"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    status, missing = bench("hackbench", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert status == 1
    assert missing["hackbench"].startswith("broken: ")
    assert missing["hackbench"].endswith(reason)


@pytest.fixture
def service() -> Iterator[Service]:
    """One that has another key than the client expects."""
    with LockedBuffer(b"another key") as key, Service(key) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield service
        service.shutdown()
        thread.join()


def test_a_wrong_signature_is_no_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PATIENCE", 0.5)
    monkeypatch.setattr(Service, "handle_error", lambda *_: None)  # our hanging up
    with pytest.raises(TimeoutError):
        web_load.load(service.server_port, 1)


def test_a_service_that_hangs_up_gives_no_answer() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"half an ans")
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs, pytest.raises(ConnectionError, match="half an ans"):
        load.exchange([ours], b"request", b"answer")


def test_what_is_in_the_middle_of_an_answer_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PATIENCE", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"VALUE that has END in it")
        with pytest.raises(TimeoutError):
            load.exchange([ours], b"get", b"END")
        theirs.sendall(b" and then END")
        assert load.exchange([ours], b"get", b"END") > 0


def test_a_gpg_that_makes_no_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "gpg"
    broken.write_text("#!/bin/sh\necho 'gpg: no entropy' >&2; exit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(Refused, match="gpg makes no key: status 2; gpg: no entropy"):
        make_gpg_key(str(tmp_path))


def test_batches_have_keys_of_their_own() -> None:
    (first, answer), (second, _) = memcached_load.batch(0), memcached_load.batch(1)
    assert first != second
    assert answer.count(b"STORED") == answer.count(b"END") == first.count(b"get ") == 32

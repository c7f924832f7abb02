# SPDX-License-Identifier: MIT
"""The module: how it is written, what it is refused for, and a short stress of it in a guest."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlockwipe import __version__
from mlockwipe.errors import Refused
from mlockwipe.kernel import module
from mlockwipe.kernel.build import debian_source
from mlockwipe.kernel.module import SUPPORTED, build, fetched_headers, installed_headers, series_of, sources
from mlockwipe.lab.carriers import lab_carrier
from mlockwipe.lab.faults import fault
from mlockwipe.lab.kernel import kernel
from mlockwipe.lab.machine import Machine, boot
from tests.kernel.module_stress import call, stress
from tests.kernel.stress import GUEST_WITH_TESTS

KERNELS = tuple(f"debian-{series}" for series in SUPPORTED)
SECONDS = 20
RACES = 3  # pages at most that are left by races which the module can't see (docs/module.md); without it, hundreds

needs_headers = [
    pytest.mark.needs_program("gcc-12", "gcc-12"),
    pytest.mark.needs_program("make", "make"),
    pytest.mark.timeout(900),
]
needs_a_guest = [
    *needs_headers,
    pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86"),
    pytest.mark.needs_program("busybox", "busybox-static"),
    pytest.mark.needs_program("depmod", "kmod"),
]


# How it is written


@pytest.mark.needs_program("perl", "perl")
@pytest.mark.timeout(900)
def test_checkpatch_has_nothing_to_say() -> None:
    files = [str(path) for path in sources() if path.suffix in (".c", ".h")]
    argv = ["perl", "scripts/checkpatch.pl", "--strict", "--terse", "--no-summary", "--file", *files]
    ran = subprocess.run(argv, cwd=debian_source("6.12"), capture_output=True, text=True)
    assert ran.stdout + ran.stderr == ""


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_headers) for name in KERNELS])
def test_it_builds_for_the_newest_kernel_without_a_warning(name: str, tmp_path: Path) -> None:
    release = kernel(name).release
    headers = fetched_headers(release)
    for path in sources():
        shutil.copy(path, tmp_path)
    argv = ["make", "-C", str(headers), f"M={tmp_path}", "CONFIG_DEBUG_INFO_BTF_MODULES=", "W=1", "modules"]
    ran = subprocess.run(argv, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "warning" not in ran.stdout + ran.stderr


def test_dkms_is_told_the_version_of_the_package() -> None:
    (conf,) = [path for path in sources() if path.name == "dkms.conf"]
    assert f'PACKAGE_VERSION="{__version__}"\n' in conf.read_text()
    assert f'MODULE_VERSION("{__version__}");' in conf.with_name("hooks.c").read_text()


# What is refused before anything is done


@pytest.mark.parametrize(
    ("release", "series"),
    [
        ("6.1.0-56-amd64", "6.1"),
        ("6.1.0-56-cloud-amd64", "6.1"),
        ("6.12.117+deb12-amd64", "6.12"),
        ("6.12.63+deb13-amd64", "6.12"),
    ],
)
def test_the_kernels_of_debian_are_known(release: str, series: str) -> None:
    assert series_of(release) == series


@pytest.mark.parametrize(
    "release", ["6.10.1-amd64", "6.18.44-fc-v669", "5.10.0-9-amd64", "6.1.0-56-rt-amd64", "6.120.1-amd64", "next", ""]
)
def test_other_kernels_are_refused_with_those_that_are_known(release: str) -> None:
    with pytest.raises(Refused, match=r"knows Debian's kernels of Linux 6\.1 and 6\.12, without -rt, not "):
        series_of(release)


def test_headers_that_are_not_installed_are_named_by_their_package() -> None:
    with pytest.raises(Refused, match=r"apt-get install linux-headers-6\.12\.0\+none-amd64"):
        installed_headers("6.12.0+none-amd64")


def test_a_compiler_that_is_missing_is_named_with_the_line_for_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "which", lambda tool: None)
    with pytest.raises(Refused, match=r"apt-get install --no-install-recommends make gcc-12$"):
        module.check_tools()


@pytest.mark.needs_program("make", "make")
def test_other_kernels_are_refused_by_kbuild(tmp_path: Path) -> None:
    for path in sources():
        shutil.copy(path, tmp_path)
    (tmp_path / "Makefile").write_text(f"VERSION=6\nPATCHLEVEL=10\nsrc={tmp_path}\ninclude Kbuild\nall:\n")
    ran = subprocess.run(["make", "-C", tmp_path], capture_output=True, text=True)
    assert ran.returncode
    assert "init_mlocked_on_free knows Linux 6.1 and 6.12, not 6.10" in ran.stderr


# In a guest


@pytest.fixture(params=KERNELS, scope="module")
def guest(request: pytest.FixtureRequest) -> Iterator[tuple[Machine, str]]:
    """A guest without the module, and the module for it."""
    booted = kernel(request.param)
    built = build(booted.release, fetched_headers(booted.release))
    with boot(booted, GUEST_WITH_TESTS, append=lab_carrier("module").append) as machine:
        yield machine, str(built)
        assert fault(machine.console) is None, machine.console[-3000:]


def shell(machine: Machine, command: str) -> str:
    return str(machine.call("subprocess:getoutput", cmd=command))


class TestInAGuest:
    pytestmark = needs_a_guest

    def test_it_is_refused_where_ftrace_is_off_and_says_so(self, guest: tuple[Machine, str]) -> None:
        machine, path = guest
        shell(machine, "sysctl kernel.ftrace_enabled=0")
        said = shell(machine, f"insmod {path}")
        shell(machine, "sysctl kernel.ftrace_enabled=1")
        assert "could not insert module" in said
        assert "init_mlocked_on_free: not loaded: a live patch" in machine.console
        assert "kernel.ftrace_enabled is 0" in machine.console
        assert shell(machine, "ls /sys/module | grep mlocked") == ""

    def test_it_counts_what_it_wipes_only_while_it_is_on(self, guest: tuple[Machine, str]) -> None:
        machine, path = guest
        assert shell(machine, f"insmod {path} enabled=0") == ""
        try:
            assert call(machine, "locked_and_unmapped", pages=64) == 0
            shell(machine, "echo 1 > /sys/module/init_mlocked_on_free/parameters/enabled")
            assert 64 <= call(machine, "locked_and_unmapped", pages=64) < 80
            shell(machine, "echo 0 > /sys/module/init_mlocked_on_free/parameters/enabled")
            assert call(machine, "locked_and_unmapped", pages=64) == 0
        finally:
            assert shell(machine, "rmmod init_mlocked_on_free") == ""

    def test_it_stays_as_long_as_a_page_waits_and_then_can_be_unloaded(self, guest: tuple[Machine, str]) -> None:
        machine, path = guest
        assert shell(machine, f"insmod {path} enabled=1") == ""
        told = call(machine, "unload_while_a_pipe_holds_pages", pages=8)
        assert told["refused"], "it was unloaded while pages waited"
        assert told["deferred"] >= 8
        assert told["data"] == "whole"
        assert told["wiped"] >= 8
        assert told["unloaded"] == ""

    def test_a_child_that_unlocks_a_part_is_done_with_that_part(self, guest: tuple[Machine, str]) -> None:
        machine, path = guest
        assert shell(machine, f"insmod {path} enabled=1") == ""
        try:
            whole, part, none = (call(machine, "child_unlocks", pages=64, unlocked=nr) for nr in (64, 16, 0))
            assert whole < 16
            assert 48 <= part < 64
            assert 64 <= none < 80
            shell(machine, "echo 0 > /sys/module/init_mlocked_on_free/parameters/inherit")
            assert call(machine, "child_unlocks", pages=64, unlocked=0) < 16
        finally:
            assert shell(machine, "rmmod init_mlocked_on_free") == ""


@pytest.mark.parametrize("on", [pytest.param(on, marks=needs_a_guest) for on in (True, False)])
def test_under_stress_nothing_is_corrupt_and_only_the_module_leaves_nothing(on: bool) -> None:
    seen = stress(kernel("debian-6.12"), SECONDS, loads=0, switches=50 * on, on=on, tolerated=RACES)
    wiped = [counts["module"]["wiped"] for counts in seen.counts]
    if on:
        assert seen.wrong == [], seen.console[-3000:]
        assert all(wiped)
        assert seen.counts[-1]["module"]["failed"] == 0
    else:
        assert seen.left > 100
        assert seen.wrong == [f"{seen.left} pages were left behind"]
        assert wiped == [0, 0]


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_a_guest) for name in KERNELS])
def test_it_comes_and_goes_under_load(name: str) -> None:
    """On one processor: QEMU's emulation of two takes a breakpoint that is gone already when the kernel patches its
    text under load, with ftrace's own tracer on an untainted kernel too (6.12.117, QEMU 7.2)."""
    seen = stress(kernel(name), 4, loads=3, switches=50, cpus=1, tolerated=RACES)
    assert seen.wrong == [], seen.console[-3000:]
    assert seen.cycles["done"]["loads"] == 3

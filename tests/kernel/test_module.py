# SPDX-License-Identifier: MIT
"""The module: how it is written, what it is refused for, and a short stress of it in a guest."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlockwipe import __version__
from mlockwipe.carriers import CARRIERS
from mlockwipe.cli import FAILED
from mlockwipe.errors import Refused
from mlockwipe.kernel import module
from mlockwipe.kernel.build import debian_source
from mlockwipe.kernel.dkms import PATIENCE
from mlockwipe.kernel.module import SUPPORTED, build, fetched_headers, installed_headers, series_of, sources
from mlockwipe.kernel.packages import cache
from mlockwipe_lab.kernel_checks.module_stress import call, stress_module
from mlockwipe_lab.matrix.judge import verify
from mlockwipe_lab.vm.failures import fault
from mlockwipe_lab.vm.kernels import kernel
from mlockwipe_lab.vm.machine import Machine, boot
from tests.lab.test_verify import KEPT, WIPED, chosen, verdicts

KERNELS = tuple(f"debian-{series}" for series in SUPPORTED)
SECONDS = 20
RACES = 3  # pages at most that are left by races which the module can't see (docs/module.md); without it, hundreds

needs_headers = [
    pytest.mark.needs_program("gcc-12", "gcc-12"),
    pytest.mark.needs_program("make", "make"),
    pytest.mark.needs_program("depmod", "kmod"),
    pytest.mark.needs_debians_linux("6.12"),
    pytest.mark.timeout(900),
]
needs_a_guest = [
    *needs_headers,
    pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86"),
    pytest.mark.needs_program("busybox", "busybox-static"),
]


# How it is written


@pytest.mark.needs_program("perl", "perl")
@pytest.mark.needs_program("xz", "xz-utils")
@pytest.mark.needs_debians_linux("6.12")
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
    with boot(booted, append=CARRIERS["module"].append) as machine:
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

    def test_uninstalling_waits_for_what_is_released_in_a_moment_and_not_for_ever(
        self, guest: tuple[Machine, str]
    ) -> None:
        machine, path = guest
        assert shell(machine, f"insmod {path} enabled=1") == ""
        said = call(machine, "unload_while_a_pipe_is_closed", pages=8, seconds=PATIENCE + 5)
        assert said.startswith("refused: the module is off, but stays loaded: pages that it has still to wipe")
        assert call(machine, "unload_while_a_pipe_is_closed", pages=8, seconds=1) == ""
        assert shell(machine, "ls /sys/module | grep mlocked") == ""

    def test_a_function_with_other_parameters_is_refused_by_its_name(self, guest: tuple[Machine, str]) -> None:
        """What the module expects is changed, for the kernel can't be."""
        machine, _ = guest
        release = machine.hello["kernel"]
        with tempfile.TemporaryDirectory(prefix="module-", dir=cache().parent) as name:
            place = Path(name)  # a guest has a /tmp of its own
            for path in sources():
                shutil.copy(path, place)
            text = (place / "release.c").read_text()
            (place / "release.c").write_text(text.replace("vm_fault_t(vm_fault*)", "vm_fault_t(vm_fault*, int)"))
            module.make(fetched_headers(release), place)
            said = shell(machine, f"insmod {place}/{module.NAME}.ko")
        assert "could not insert module" in said
        assert (
            f"init_mlocked_on_free: not loaded: do_wp_page of this kernel, {release}, is vm_fault_t(vm_fault*) "
            "instead of vm_fault_t(vm_fault*, int)"
        ) in machine.console

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


@pytest.mark.parametrize(
    ("how", "why", "said"),
    [
        pytest.param(how, why, said, marks=needs_a_guest)
        for how, why, said in (
            ("lockdown", "lockdown=integrity", "the kernel is locked down and takes no module that is not signed"),
            ("sig_enforce", "module.sig_enforce", "the kernel takes no module that is not signed"),
        )
    ],
)
def test_a_kernel_that_wants_signatures_refuses_it_and_the_way_out_is_told(how: str, why: str, said: str) -> None:
    booted = kernel("debian-6.12")
    built = build(booted.release, fetched_headers(booted.release))
    verb = f"{sys.executable} -P -m mlockwipe kernel module"
    with boot(booted) as machine:
        call(machine, "installed", path=str(built))
        before = json.loads(shell(machine, f"{verb} status --json"))
        call(machine, "restrict", how=how)
        after = json.loads(shell(machine, f"{verb} status --json"))
        table, enabled = shell(machine, f"COLUMNS=400 {verb} status"), shell(machine, f"{verb} enable; echo $?")
        loaded = shell(machine, "ls /sys/module | grep mlocked")
    remedy = "enroll DKMS's own key: mokutil --import /var/lib/dkms/mok.pub, then reboot and confirm it"
    refused = f"{why}: only modules signed by a key that the kernel trusts are loaded; {remedy}"
    assert (before["refused"], after["refused"]) == (None, refused)
    assert f"not loaded, and would be refused: {refused}" in table
    assert enabled == f"mlockwipe: the module is not loaded: {said} by a key that it trusts; {remedy}\n{FAILED}"
    assert loaded == ""


@pytest.mark.parametrize("name", [pytest.param("debian-6.12", marks=needs_a_guest)])
def test_a_selection_of_cases_is_wiped_and_kept_with_it_and_leaks_without(name: str) -> None:
    (runs,) = verify([kernel(name)], [CARRIERS["none"], CARRIERS["module"]], chosen(*WIPED, *KEPT))
    bare, loaded = (verdicts(run) for run in runs)
    assert bare == dict.fromkeys(WIPED, "leaked") | dict.fromkeys(KEPT, "kept")
    assert loaded == dict.fromkeys(WIPED, "wiped") | dict.fromkeys(KEPT, "kept")


@pytest.mark.parametrize("on", [pytest.param(on, marks=needs_a_guest) for on in (True, False)])
def test_under_stress_nothing_is_corrupt_and_only_the_module_leaves_nothing(on: bool) -> None:
    seen = stress_module(kernel("debian-6.12"), SECONDS, loads=0, switches=50 * on, on=on, tolerated=RACES)
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
    seen = stress_module(kernel(name), 4, loads=3, switches=50, cpus=1, tolerated=RACES)
    assert seen.wrong == [], seen.console[-3000:]
    assert seen.cycles["done"]["loads"] == 3

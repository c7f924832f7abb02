# SPDX-License-Identifier: MIT
"""The lab in trouble: it says why, ends with the right status, and leaves nothing behind."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mlockwipe import cli
from mlockwipe.carriers import CARRIERS
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import Result
from mlockwipe.errors import Refused
from mlockwipe.linux import procfs
from mlockwipe_lab.matrix import lab_verify
from mlockwipe_lab.matrix.document import as_document
from mlockwipe_lab.matrix.judge import Look, Run, Verdict, verify_one
from mlockwipe_lab.vm import machine
from mlockwipe_lab.vm.failures import BOOTS_AGAIN, GuestFailed, emulator_failed
from mlockwipe_lab.vm.kernels import Kernel, kernel
from mlockwipe_lab.vm.machine import boot
from tests.support.running import MLOCKWIPE, Marked, marked
from tests.support.terminal import CTRL_C, Terminal, terminal

IN_GUESTS = [
    pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86"),
    pytest.mark.needs_program("busybox", "busybox-static"),
    pytest.mark.needs_program("depmod", "kmod"),
    pytest.mark.timeout(600),
]
PATIENCE = 300.0  # seconds
OURS = {"mlockwipe", "vng", "virtme-run", "qemu-system-x86"}


def in_guests(test: Callable[..., None]) -> Callable[..., None]:
    for mark in IN_GUESTS:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def debian() -> Kernel:
    return kernel("debian-6.1")


# Ended from outside


def place_of_the_machine(processes: Marked) -> Path:
    """Its directory, as soon as QEMU runs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for pid in processes.named("qemu-system-x86"):
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            for word in words:
                if word.startswith("memory-backend-file,"):
                    return Path(word.rpartition("mem-path=")[2]).parent
        time.sleep(0.05)
    raise AssertionError(f"there is no QEMU: {processes.processes()}")


def end_by_key(user: Terminal) -> None:
    user.type(CTRL_C)


def end_by_signal(user: Terminal) -> None:
    (pid,) = user.processes.named("mlockwipe")
    os.kill(pid, signal.SIGTERM)


@in_guests
@pytest.mark.parametrize("moment", ["boot", "cases"])
@pytest.mark.parametrize(("end", "status"), [(end_by_key, 130), (end_by_signal, 143)])
def test_who_ends_it_gets_the_status_and_finds_nothing_left(
    tmp_path: Path, debian: Kernel, moment: str, end: Callable[[Terminal], None], status: int
) -> None:
    lab = [MLOCKWIPE, "lab", "verify", "--kernel", str(debian.image), "--carrier", "none", "--case", "W*"]
    with terminal() as user:
        user.run(f"export TERM=xterm TMPDIR={shlex.quote(str(tmp_path))}")
        user.type(f"{shlex.join(lab)}; echo status=$?,\n")
        place = place_of_the_machine(user.processes)
        assert place.is_dir()
        if moment == "cases":
            user.until(r"\b[1-9]\d*/\d+")  # the bar has moved: so many are judged
        end(user)
        user.until(f"status={status},")
        assert not place.exists()
        deadline = time.monotonic() + 10
        while left := OURS & set(user.processes.processes().values()):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    assert not list(tmp_path.iterdir())


@in_guests
def test_who_ends_a_download_finds_nothing_left(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("apt-cache", "echo linux-image-6.1.0-99-amd64-unsigned"), ("apt-get", "exec sleep 600")):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    with marked() as processes:
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path)}
        lab = subprocess.Popen([MLOCKWIPE, "lab", "verify"], env=processes.environment | environment)
        deadline = time.monotonic() + PATIENCE
        while not processes.named("sleep"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lab.terminate()
        assert lab.wait(PATIENCE) == 143
    assert not list((tmp_path / "mlockwipe" / "kernels").iterdir())


# Guests that fail


@in_guests
def test_a_guest_that_panics_is_told_with_its_console(
    debian: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    panics = replace(CARRIERS["none"], prefix=("sh", "-c", "echo c > /proc/sysrq-trigger"))
    monkeypatch.setitem(CARRIERS, "none", panics)
    assert cli.main(["lab", "verify", "--kernel", str(debian.image), "--case", "W1-whole", "--carrier", "none"]) == 1
    out = capsys.readouterr().out
    assert "none: the guest is gone; the end of its console:" in out
    assert "Kernel panic - not syncing: sysrq triggered crash" in out


@in_guests
def test_a_kernel_that_can_not_see_its_files_is_told_with_its_console(debian: Kernel, tmp_path: Path) -> None:
    """Without its modules Debian's has no 9p and no virtio."""
    image = tmp_path / "boot" / debian.image.name
    image.parent.mkdir()
    shutil.copy(debian.image, image)
    run = verify_one(kernel(str(image)), CARRIERS["none"], all_cases()[:1])
    assert run.failed is not None
    assert not run.ok
    assert "Linux version 6.1" in run.console


@in_guests
def test_a_guest_whose_program_fails_is_told_with_its_console(debian: Kernel) -> None:
    with pytest.raises(GuestFailed, match="the guest is gone") as failed, boot(debian, ["sh", "-c", "echo no luck"]):
        pytest.fail("it is up")
    assert "no luck" in failed.value.console


@in_guests
def test_a_kernel_without_the_boot_option_is_not_judged_by_it(debian: Kernel) -> None:
    run = verify_one(debian, CARRIERS["boot-option"], [case for case in all_cases() if case.name == "W1-whole"])
    assert run.failed == "debian-6.1 has no boot option init_mlocked_on_free: name a kernel that has"
    assert not run.verdicts


def test_how_a_guest_failed_is_printed_as_it_is(debian_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lab_verify._print(Console(width=200), [debian_run], False)
    out = capsys.readouterr().out
    assert "none: QEMU refuses 'stop' ([Errno 32] [/] Broken pipe); the end of its console:" in out
    assert "line 39 [bold]" in out
    assert "line 19" not in out
    debian_run.console = "line 0\nKernel panic - not syncing\n" + debian_run.console
    lab_verify._print(Console(width=200), [debian_run], False)
    out = capsys.readouterr().out
    assert "Kernel panic - not syncing\nline 0 [bold]\nline 1 [bold]" in out


def test_where_the_pages_of_a_wrong_verdict_lie_is_printed(
    debian_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Look(6, [{"frame": 0x1234 + number, "pairs": 256, "kind": "free"} for number in range(6)])
    leaked = Result("W1-whole", "W1", "leaked", "wiped", 16, 6)
    kept = Result("L1-munlock-exit", "L1", "kept", "kept", 16, 6)
    verdicts = [Verdict(leaked, seen, Look(0, []), 1.0), Verdict(kept, seen, seen, 1.0)]
    wrong = replace(debian_run, failed=None, carrier=CARRIERS["supervisor"], verdicts=verdicts)
    lab_verify._print(Console(width=200), [wrong], False)
    told = [line for line in capsys.readouterr().out.splitlines() if "0x" in line]
    assert told == [
        "supervisor: W1-whole, right after the release: "
        "0x1234000 (free), 0x1235000 (free), 0x1236000 (free), 0x1237000 (free) and 2 more"
    ]
    document = json.loads(json.dumps(as_document([wrong], {})))
    assert document["runs"][0]["console"].startswith("line 0")
    lab_verify._print(Console(width=200), [replace(wrong, carrier=CARRIERS["none"])], False)
    assert "0x" not in capsys.readouterr().out


@pytest.fixture
def debian_run() -> Run:
    console = "\n".join(f"line {number} [bold]" for number in range(40))
    failed = "QEMU refuses 'stop' ([Errno 32] [/] Broken pipe)"
    nothing = Kernel("debian-6.1", "6.1.0", Path("/nowhere"), None)
    return Run(nothing, CARRIERS["none"], failed=failed, console=console)


# What is missing


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence that a command line is refused with."""
    assert cli.main(["lab", "verify", *words]) == 125
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mlockwipe: ")
    assert err.count("\n") == 1
    return err


def test_without_qemu_it_names_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_PATH", "/nowhere")
    said = refusal(capsys)
    assert "the lab needs qemu-system-x86, kmod, busybox-static" in said
    assert "make lab-setup" in said


@in_guests
def test_a_file_that_is_no_kernel_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "test_trouble.py is not a kernel: name the bzImage" in refusal(capsys, "--kernel", __file__)


@in_guests
def test_without_room_for_the_memory_it_says_where_to_make_some(
    debian: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_found", {"": "tcg"})
    full = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(Refused, match="the lab needs 1152 MiB in /dev/shm or "):
        verify_one(debian, CARRIERS["none"], all_cases()[:1])


@in_guests
def test_pages_that_can_not_be_written_are_said_before_a_guest_boots(
    debian: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, "--kernel", str(debian.image), "--html", f"{__file__}/pages")
    assert "the pages can't be written to " in said
    assert "Not a directory" in said


@pytest.mark.parametrize(
    ("console", "failed"),
    [
        ("[    1.2] Oops: int3: 0000 [#1] SMP\n[    1.2] RIP: 0010:sched_clock_cpu+0x5/0x170\n", True),
        ("[    1.2] int3: 0000 [#1] PREEMPT SMP NOPTI\n", True),
        ("[    1.2] Oops: 0002 [#1] SMP\n", False),
        ("[    1.2] Kernel panic - not syncing: sysrq triggered crash\n", False),
        (
            "[    1.003136] NetLabel: Initializing\n[    1.059566] IP idents hash table entries: 16384\n",
            True,
        ),
        ("[    1.057265] clocksource: acpi_pm: mask: 0xffffff\n[    5.319937] Run /init as init process\n", False),
        ("SeaBIOS (version 1.16.2-debian-1.16.2-1)\n\nBooting from ROM...", False),
        ("", False),
    ],
)
def test_a_late_breakpoint_and_a_silent_stop_before_init_are_faults_of_the_emulation(
    console: str, failed: bool
) -> None:
    assert emulator_failed(console) is failed


@pytest.mark.parametrize(
    ("said", "boots"),
    [
        ("Oops: int3: 0000 [#1]", BOOTS_AGAIN + 1),
        ("IP idents hash table entries", BOOTS_AGAIN + 1),
        ("Oops: 0002 [#1]", 1),
    ],
)
def test_a_machine_that_dies_of_its_emulation_is_booted_again_and_no_other(
    said: str, boots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    class Dead:
        def connect(self, timeout: float) -> None:
            begun.append(timeout)
            raise GuestFailed("the guest is gone", f"[    1.2] {said}")

    @contextmanager
    def running(*arguments: object) -> Iterator[Dead]:
        yield Dead()

    monkeypatch.setattr(machine, "check_tools", lambda: None)
    monkeypatch.setattr(machine, "acceleration", lambda kernel: "tcg")
    monkeypatch.setattr(machine, "_running", running)
    with pytest.raises(GuestFailed), machine.boot(Kernel("x", "x", Path("x"), None), ["/bin/true"]):
        pass
    assert len(begun) == boots


def stop_for_good(group: int) -> None:
    """Every thread of a process group: on a busy machine one may run on for a moment after the signal."""
    os.killpg(group, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while not all(procfs.stat_fields(tid)[0] in "TZ" for pid in members(group) for tid in procfs.tasks(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def members(group: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                found.append(pid)
    return found


@in_guests
def test_a_kernel_that_just_stops_while_it_boots_is_booted_again(
    debian: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.acceleration(debian)  # which starts a machine, too, if nobody has asked before
    start = machine._start
    stopped: list[machine.Machine] = []

    def start_and_stop(*arguments: Any) -> machine.Machine:
        started = start(*arguments)
        monkeypatch.setattr(machine, "BOOT_SILENCE", PATIENCE if stopped else 20.0)
        if not stopped:
            deadline = time.monotonic() + PATIENCE
            while "] Linux version " not in started.console:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            stop_for_good(started._process.pid)
            stopped.append(started)
        return started

    monkeypatch.setattr(machine, "_start", start_and_stop)
    run = verify_one(debian, CARRIERS["none"], [case for case in all_cases() if case.name == "W1-whole"])
    assert run.failed is None, run.console[-3000:]
    assert run.guest["boots"] == 2
    assert [verdict.result.verdict for verdict in run.verdicts] == ["leaked"]

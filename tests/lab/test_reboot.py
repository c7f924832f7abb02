# SPDX-License-Identifier: MIT
"""A machine whose process 1 has locked all of its memory reboots, and one that does not get there is convicted."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from mlockwipe.carriers import CARRIERS
from mlockwipe_lab.kernel_checks.reboot import complaint, reboot
from mlockwipe_lab.vm.alone import initramfs
from mlockwipe_lab.vm.failures import GuestFailed
from mlockwipe_lab.vm.kernels import kernel
from tests.support.c_programs import compiled

needs_a_guest = [
    pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86"),
    pytest.mark.needs_program("depmod", "kmod"),
    pytest.mark.needs_program("gcc", "gcc"),
    pytest.mark.timeout(600),
]

GOOD = """\
[    1.00] Run /init as init process
process 1 has locked 1016 kB: reboot
[    1.10] reboot: Restarting system
[    1.11] reboot: machine restart
"""


def rebooted(carrier: str, how: str) -> str:
    init = Path(compiled("locked_init", "-static"))
    return reboot(kernel("debian-6.1"), init, [how], append=CARRIERS[carrier].append)


@pytest.mark.parametrize("carrier", [pytest.param(name, marks=needs_a_guest) for name in ("none", "init_on_free")])
def test_a_process_1_that_has_locked_all_reboots_the_machine(carrier: str) -> None:
    console = rebooted(carrier, "reboot")
    assert all(word in console for word in CARRIERS[carrier].append)


@pytest.mark.parametrize(
    ("how", "wrong"),
    [
        pytest.param("crash", "Kernel panic - not syncing: sysrq triggered crash", marks=needs_a_guest),
        pytest.param("return", "Kernel panic - not syncing: Attempted to kill init", marks=needs_a_guest),
    ],
)
def test_a_machine_that_panics_is_convicted(how: str, wrong: str) -> None:
    with pytest.raises(GuestFailed, match="the kernel says: ") as failed:
        rebooted("none", how)
    assert wrong in failed.value.console


def test_a_machine_that_hangs_is_convicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _with_qemu("exec sleep 60", tmp_path, monkeypatch, timeout=0.2) == "the guest does not end in 0 s"


def test_a_machine_that_does_not_come_up_is_convicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _with_qemu("echo no such kernel >&2; exit 1", tmp_path, monkeypatch) == "no such kernel"
    assert _with_qemu("exit 1", tmp_path, monkeypatch) == "QEMU ended with 1"
    assert _with_qemu("exit 0", tmp_path, monkeypatch) == "process 1 has not locked its memory"


def _with_qemu(script: str, place: Path, monkeypatch: pytest.MonkeyPatch, timeout: float = 60) -> str:
    """Why a reboot failed in which `script` is QEMU."""
    image, qemu = place / "bzImage", place / "qemu-system-x86_64"
    header = bytearray(0x400)
    header[0x202:0x206], header[0x20E:0x210] = b"HdrS", (0x100).to_bytes(2, "little")
    image.write_bytes(bytes(header[:0x300]) + b"6.1.0 (someone)\0")
    qemu.write_text(f"#!/bin/sh\n{script}\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    with pytest.raises(GuestFailed) as failed:
        reboot(kernel(str(image)), image, timeout=timeout)
    return str(failed.value)


def test_a_console_without_a_complaint_is_one_of_a_reboot() -> None:
    assert complaint(GOOD) is None


@pytest.mark.parametrize(
    "line",
    [
        "[    1.05] ------------[ cut here ]------------",
        "[    1.05] BUG: Bad page state in process init  pfn:12345",
        "[    1.05] BUG: unable to handle page fault for address: ffff888",
        "[    1.05] Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "[    1.05] general protection fault, probably for non-canonical address 0x5ec7e70f6d6c6f63: 0000 [#1]",
        "[    1.05] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009",
        "[    1.05] Call Trace:",
    ],
)
def test_a_kernel_that_complains_is_convicted(line: str) -> None:
    lines = GOOD.splitlines()
    for at in range(len(lines) + 1):
        assert complaint("\n".join([*lines[:at], line, *lines[at:]])) == f"the kernel says: {line}"


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        ("1016 kB", "0 kB", "process 1 has not locked its memory"),
        ("process 1", "process 7", "process 1 has not locked its memory"),
        ("Restarting system", "Power down", "it ended without a reboot"),
    ],
)
def test_a_console_that_says_less_is_none_of_a_reboot(before: str, after: str, wrong: str) -> None:
    assert complaint(GOOD.replace(before, after)) == wrong


def test_the_file_system_is_one_that_cpio_reads(tmp_path: Path) -> None:
    assert _names(initramfs({"init": b"odd"})) == ["proc", "init", "TRAILER!!!"]
    assert _names(initramfs({"init": b"odd", "a": b"1", "bc": b""})) == ["proc", "init", "a", "bc", "TRAILER!!!"]


def _names(archive: bytes) -> Sequence[str]:
    """What a reader finds that goes from header to header by the lengths in them."""
    names, at = [], 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        size, length = (int(archive[at + start : at + start + 8], 16) for start in (54, 94))
        names.append(archive[at + 110 : at + 110 + length - 1].decode())
        at += -(-(110 + length) // 4) * 4
        at += -(-size // 4) * 4
    return names

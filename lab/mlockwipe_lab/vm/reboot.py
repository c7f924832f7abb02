# SPDX-License-Identifier: MIT
"""A machine whose process 1 has locked its memory and reboots it: does it get there without a complaint?

In the other guests process 1 is virtme-ng's. Here it is one static program, alone in a file system in memory,
and all that is known of the machine is what it says on its serial line.
"""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mlockwipe.errors import Refused
from mlockwipe_lab.vm.faults import BOOTS_AGAIN, emulator_failed, fault
from mlockwipe_lab.vm.kernel import Kernel

TIMEOUT = 300.0  # seconds: always emulated, for it takes one boot and no more
MEMORY = 256  # MiB

_LOCKED = re.compile(r"^process 1 has locked [1-9]\d* kB: ", re.MULTILINE)
_REBOOTS = "reboot: Restarting system"  # kernel/reboot.c: kernel_restart


@dataclass(frozen=True)
class Reboot:
    """`wrong`: why the machine did not reboot as it must, or None. `console`: all that it said."""

    wrong: str | None
    console: str


def reboot(
    kernel: Kernel,
    init: Path,
    arguments: Sequence[str] = (),
    *,
    append: Sequence[str] = (),
    timeout: float = TIMEOUT,
) -> Reboot:
    """Boot `kernel` with `init`, a static program, as process 1, and see how it ends.

    `init` says 'process 1 has locked N kB: ' and reboots the machine. `append`: more of the kernel's command
    line. Raises Refused.
    """
    for _ in range(BOOTS_AGAIN):
        done = _reboot(kernel, init, arguments, append, timeout)
        if not emulator_failed(done.console):
            return done
    return _reboot(kernel, init, arguments, append, timeout)


def _reboot(kernel: Kernel, init: Path, arguments: Sequence[str], append: Sequence[str], timeout: float) -> Reboot:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise Refused("a machine needs qemu-system-x86_64: run `make lab-setup`, or apt-get install qemu-system-x86")
    with tempfile.TemporaryDirectory(prefix="mlockwipe-reboot-") as directory:
        place = Path(directory)
        (place / "initramfs").write_bytes(initramfs(init.read_bytes()))
        # A panic reboots too, and at once: it is told from what is asked for by what the console says.
        words = ["console=ttyS0", "panic=-1", *append, "--", *arguments]
        argv = [qemu, "-accel", "tcg", "-m", f"{MEMORY}M", "-smp", "2", "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-no-reboot", "-serial", f"file:{place}/console"]
        argv += ["-kernel", str(kernel.image), "-initrd", f"{place}/initramfs", "-append", shlex.join(words)]
        (place / "console").touch()
        try:
            ran = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
            failed = ran.stderr.strip() or f"QEMU ended with {ran.returncode}" if ran.returncode else None
        except subprocess.TimeoutExpired:
            failed = f"the machine does not end in {timeout:.0f} s"
        console = (place / "console").read_text(errors="replace").replace("\r", "")
    return Reboot(failed or complaint(console), console)


def complaint(console: str) -> str | None:
    """What is wrong with a machine that has said this and ended; None when it rebooted and had no complaint."""
    if said := fault(console):
        return f"the kernel says: {said}"
    locked = _LOCKED.search(console)
    if locked is None:
        return "process 1 has not locked its memory"
    if _REBOOTS not in console[locked.end() :]:
        return "it ended without a reboot"
    return None


# The file system


def initramfs(init: bytes, files: Mapping[str, bytes] | None = None) -> bytes:
    """A file system in which there is a program /init, a place for /proc, and `files` by their paths below /; all can
    be executed.
    """
    files = {"init": init, **(files or {})}
    above = {parent.as_posix() for name in files for parent in PurePath(name).parents} - {"."}
    directories = b"".join(_entry(name, 0o040755) for name in sorted({"proc", *above}))
    contents = b"".join(_entry(name, 0o100755, content) for name, content in files.items())
    return directories + contents + _entry("TRAILER!!!", 0)


def _entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """One file of a cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    links, size, length = 1, len(content), len(name) + 1
    fields = (0, mode, 0, 0, links, 0, size, 0, 0, 0, 0, length, 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(header) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)

# SPDX-License-Identifier: MIT
"""A machine with one static program, alone in a file system in memory; it ends by itself.

In the other guests process 1 is virtme-ng's. All that is known of these is what they say on their serial line.
"""

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from mlockwipe.errors import Refused
from mlockwipe.interruption import held, let_in
from mlockwipe_lab.vm.failures import BOOT_SILENCE, GuestFailed, boot_again, has_init
from mlockwipe_lab.vm.kernels import Kernel

T = TypeVar("T")

Files = dict[str, bytes]  # by path below /


def check_qemu() -> str:
    """Where QEMU is. Raises Refused."""
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise Refused("the lab needs qemu-system-x86: run `make lab-setup`, or apt-get install it")
    return qemu


def run_alone(
    kernel: Kernel,
    files: Files,
    words: Sequence[str],
    read: Callable[[str], T],
    *,
    options: Sequence[str],
    timeout: float,
    on_console: Callable[[str], object] = lambda console: None,
) -> T:
    """What `read` makes of the console of a machine that has ended; it raises GuestFailed when that is not as it must
    be. `files`: its file system, with the program as 'init'. `words`: the kernel's command line. `options`: QEMU's.
    `timeout`: in seconds, within which it is booted again where its emulation failed. `on_console`: is called with
    what it has said so far.

    Raises Refused and GuestFailed.
    """
    archive = initramfs(files)
    deadline = time.monotonic() + timeout

    def boot(_: int) -> T:
        return read(_run(kernel, archive, words, options, deadline, timeout, on_console))

    return boot_again(boot, deadline)


def qemu_command(kernel: Kernel, archive: Path, words: Sequence[str], options: Sequence[str]) -> list[str]:
    """With neither a screen nor a serial line. Raises Refused."""
    argv = [check_qemu(), *options, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    return [*argv, "-kernel", str(kernel.image), "-initrd", str(archive), "-append", shlex.join(words)]


def _run(
    kernel: Kernel,
    archive: bytes,
    words: Sequence[str],
    options: Sequence[str],
    deadline: float,
    timeout: float,
    on_console: Callable[[str], object],
) -> str:
    """The console of a machine that has ended well. Raises GuestFailed."""
    with held(), tempfile.TemporaryDirectory(prefix="mlockwipe-alone-") as directory:
        place = Path(directory)
        (place / "initramfs").write_bytes(archive)
        (place / "console").touch()
        argv = qemu_command(kernel, place / "initramfs", words, options)
        with (place / "errors").open("w") as errors:
            process = subprocess.Popen(
                [*argv, "-serial", f"file:{place}/console"],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        try:
            with let_in():
                failed = _follow(process, place / "console", deadline, timeout, on_console)
        finally:
            process.kill()
            process.wait()
        console = _read(place / "console")
        failed = (place / "errors").read_text().strip() or failed
    if failed is not None:
        raise GuestFailed(failed, console)
    return console


def _follow(
    process: "subprocess.Popen[bytes]",
    console: Path,
    deadline: float,
    timeout: float,
    on_console: Callable[[str], object],
) -> str | None:
    """Wait for the machine to end: why it did not do so well, or None."""
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"the guest does not end in {timeout:.0f} s"
        time.sleep(0.1)
        said = _read(console)
        on_console(said)
        if not has_init(said) and time.time() - console.stat().st_mtime > BOOT_SILENCE:
            return f"the guest hangs: its console is silent for {BOOT_SILENCE:.0f} s"
    return f"QEMU ended with {process.returncode}" if process.returncode else None


def _read(console: Path) -> str:
    return console.read_text(errors="replace").replace("\r", "")


# The file system


def initramfs(files: Files) -> bytes:
    """A file system in which there is a place for /proc, and `files`; all can be executed."""
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

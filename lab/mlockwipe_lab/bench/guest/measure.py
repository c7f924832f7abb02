# SPDX-License-Identifier: MIT
"""A machine and process 1 in it, which measures.

As a rule its time goes on by one nanosecond with every instruction. QEMU's -icount does that, on one emulated CPU: no
cache, no waiting, no other load on this machine shows. The same kernel on the same command line takes the same number
of instructions each time it is booted.
"""

import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe.interruption import held, let_in
from mlockwipe.kernel.module import NAME, build, fetched_headers
from mlockwipe_lab.bench.guest.packed import Files
from mlockwipe_lab.bench.guest.work import COUNTING, Clock, Configuration, Sample, mistake
from mlockwipe_lab.c_program import compile_c
from mlockwipe_lab.vm.faults import BOOTS_AGAIN, emulator_failed
from mlockwipe_lab.vm.kernel import Kernel
from mlockwipe_lab.vm.machine import GuestFailed
from mlockwipe_lab.vm.reboot import initramfs

TIMEOUT = 1200.0  # seconds; it takes minutes of a CPU
MEMORY = 1536  # MiB: the largest munmap, and room for the programs

_SOURCE = Path(__file__).with_name("workloads.c")
_FLAGS = ("-static",)
_TIMING = ("-DTIME", "-DTIMES=5")

# Programs are mapped at the same places every time, for the page tables that they take depend on that.
_WORDS = ("console=ttyS0", "panic=-1", "norandmaps")


def check_qemu() -> str:
    """Where QEMU is. Raises Refused."""
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise Refused("the lab needs qemu-system-x86: run `make lab-setup`, or apt-get install it")
    return qemu


def compile_init(place: Path, *, timing: bool = False) -> Path:
    """Process 1, compiled into the directory `place`; it counts instructions, or is `timing`. Raises Refused."""
    return compile_c(_SOURCE, place / "init", *_FLAGS, *(_TIMING if timing else ()))


def measure(
    kernel: Kernel,
    init: Path,
    programs: Files,
    configuration: Configuration,
    advance: Callable[[], object] = lambda: None,
    *,
    boot: int = 0,
    clock: Clock = COUNTING,
    timeout: float = TIMEOUT,
) -> dict[str, Sample]:
    """Boot `kernel` with `init` as process 1 and `programs` around it: what each kind of work took, by its name.
    `advance` is called for each. `boot`: its number, which makes it differ a little from the others. `timeout`: in
    seconds, within which a machine that dies of its emulation is booted again.

    Raises Refused and GuestFailed.
    """
    deadline = time.monotonic() + timeout
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        for _ in range(told, done):
            advance()
        told = max(told, done)

    archive = initramfs(init.read_bytes(), {**programs, **_module(kernel, configuration)})
    words = [*_WORDS, f"boot={boot}", *configuration.append]
    boots = 0
    while True:
        boots += 1
        try:
            console = _run(kernel, archive, words, clock, tell, deadline - time.monotonic())
            samples = parse(console)
            break
        except GuestFailed as failed:
            if boots > BOOTS_AGAIN or not emulator_failed(failed.console) or time.monotonic() > deadline:
                raise
    if (wrong := mistake(samples, configuration, console, clock)) is not None:
        raise GuestFailed(wrong, console)
    return samples


def _run(
    kernel: Kernel,
    archive: bytes,
    words: Sequence[str],
    clock: Clock,
    tell: Callable[[int], object],
    timeout: float,
) -> str:
    """The console of a machine that has ended well. `tell` is given the number of works done. Raises GuestFailed."""
    with held(), tempfile.TemporaryDirectory(prefix="mlockwipe-bench-") as directory:
        place = Path(directory)
        (place / "initramfs").write_bytes(archive)
        (place / "console").touch()
        argv = [check_qemu(), *clock, "-m", f"{MEMORY}M", "-nodefaults", "-no-user-config", "-display", "none"]
        argv += ["-no-reboot", "-serial", f"file:{place}/console"]
        argv += ["-kernel", str(kernel.image), "-initrd", f"{place}/initramfs"]
        argv += ["-append", shlex.join(words)]
        with (place / "errors").open("w") as errors:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
            )
        try:
            with let_in():
                failed = _follow(process, place / "console", tell, timeout)
        finally:
            process.kill()
            process.wait()
        console = _read(place / "console")
        failed = (place / "errors").read_text().strip() or failed
    if failed is not None:
        raise GuestFailed(failed, console)
    return console


def _module(kernel: Kernel, configuration: Configuration) -> Files:
    """The module, on the kernels that it is for, loaded or not. Raises Refused."""
    if configuration.kernel != "debian":
        return {}
    return {f"{NAME}.ko": build(kernel.release, fetched_headers(kernel.release)).read_bytes()}


def _follow(
    process: "subprocess.Popen[bytes]", console: Path, tell: Callable[[int], object], timeout: float
) -> str | None:
    """Wait for the machine to end: why it did not do so well, or None."""
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"the guest does not end in {timeout:.0f} s"
        time.sleep(0.1)
        tell(len(_said(_read(console))))
    return f"QEMU ended with {process.returncode}" if process.returncode else None


def _read(console: Path) -> str:
    return console.read_text(errors="replace").replace("\r", "")


def _said(console: str) -> Sequence[str]:
    """The whole lines of process 1."""
    return [line for line in console.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]


def parse(console: str) -> dict[str, Sample]:
    """What process 1 has measured. Raises GuestFailed when it has not got to its end."""
    samples: dict[str, Sample] = {}
    for line in _said(console):
        try:
            said = json.loads(line)
            if "failed" in said:
                raise GuestFailed(f"process 1 failed: {said['failed']}", console)
            if "end" in said:
                return samples
            samples[said["workload"]] = Sample(*(tuple(said[key]) for key in ("took", "wiped", "system")))
        except (ValueError, KeyError, TypeError):
            raise GuestFailed(f"process 1 said {line.strip()!r}", console) from None
    raise GuestFailed("process 1 did not get to its end", console)

# SPDX-License-Identifier: MIT
"""Where the instructions of an munmap of locked memory go, by function of the kernel.

The kernel of the lab is stepped through the one system call, an instruction at a time, by QEMU, which logs each:
`python -m mlockwipe_lab.kernel_checks.profile`.
"""

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlockwipe.kernel.packages import cache
from mlockwipe_lab.bench.guest.measure import MEMORY
from mlockwipe_lab.bench.guest.work import COUNTING
from mlockwipe_lab.c_program import compile_c
from mlockwipe_lab.kernel_checks import PROGRAMS
from mlockwipe_lab.vm.alone import initramfs, qemu_command
from mlockwipe_lab.vm.kernels import kernel

PAGES = 256  # as profiled.c
_WORDS = ("console=ttyS0", "panic=-1", "nokaslr", "norandmaps", "init_on_alloc=0")
_EXECUTED = re.compile(r"\[[0-9a-f]+/([0-9a-f]+)/")
_PATIENCE = 120.0  # seconds


class Symbols:
    """The functions of a kernel, from its System.map."""

    def __init__(self, path: Path) -> None:
        lines = (line.split() for line in path.read_text().splitlines())
        found = sorted((int(address, 16), name) for address, kind, name in lines if kind in "tTwW")
        self._addresses, self._names = zip(*found, strict=True)

    def __call__(self, address: int) -> str:
        return str(self._names[bisect_right(self._addresses, address) - 1])


def executed(series: str, option: int) -> Counter[str]:
    """How many instructions of each function an munmap takes."""
    tree = cache() / f"build-{series}-lab"
    booted = kernel(f"patched-{series}")
    symbols = Symbols(tree / "System.map")
    with tempfile.TemporaryDirectory(prefix="profile-") as directory:
        place = Path(directory)
        init = compile_c(PROGRAMS / "profiled.c", place / "profiled", "-static")
        (place / "initramfs").write_bytes(initramfs({"init": init.read_bytes()}))
        words = [*_WORDS, f"init_mlocked_on_free={option}"]
        argv = qemu_command(booted, place / "initramfs", words, [*COUNTING, "-m", f"{MEMORY}M"])
        argv += ["-serial", "stdio", "-monitor", f"unix:{place}/monitor,server=on,wait=off", "-D", f"{place}/log"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdin is not None and process.stdout is not None
                lines = iter(process.stdout)
                _until("ready", lines)
                monitor(place / "monitor", "singlestep on", "log exec,nochain")
                process.stdin.write("\n")
                process.stdin.flush()
                _until("done", lines)
                monitor(place / "monitor", "log none")
            finally:
                process.kill()
        found = Counter[str]()
        with (place / "log").open() as log:
            for line in log:
                if (seen := _EXECUTED.search(line)) and (address := int(seen[1], 16)) >= 1 << 63:
                    found[symbols(address)] += 1
    return found


def _until(word: str, lines: Iterator[str]) -> None:
    for line in lines:
        if line.strip() == word:
            return
    raise RuntimeError(f"the guest ended before it said '{word}'")


def monitor(path: Path, *commands: str) -> None:
    """Have QEMU's monitor carry out commands, each to its end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(path))
        for command in ("", *commands):
            if command:
                connection.sendall(f"{command}\n".encode())
            said = b""
            while not said.endswith(b"(qemu) "):
                said += connection.recv(4096)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mlockwipe_lab.kernel_checks.profile", description=__doc__)
    parser.add_argument("--series", default="6.12", help="of Linux (default: 6.12)")
    options = parser.parse_args()
    began = time.monotonic()
    off, on = (executed(options.series, option) for option in (0, 1))
    table = Table(title=f"munmap of a locked page of 4 KiB, Linux {options.series}: instructions by function")
    for column in ("function", "off", "on", "more"):
        table.add_column(column, justify="left" if column == "function" else "right")
    more = {name: on[name] - off[name] for name in {*off, *on}}
    for name in sorted(more, key=lambda name: -abs(more[name])):
        if abs(more[name]) >= PAGES // 2:  # half an instruction a page
            table.add_row(name, *(f"{count / PAGES:.1f}" for count in (off[name], on[name], more[name])))
    table.add_row("all", *(f"{count / PAGES:.1f}" for count in (off.total(), on.total(), on.total() - off.total())))
    Console().print(table)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

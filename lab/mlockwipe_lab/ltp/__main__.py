# SPDX-License-Identifier: MIT
"""python -m mlockwipe_lab.ltp DIRECTORY: LTP's system call tests, bare and supervised, must come to the same.

DIRECTORY is a source tree of LTP (linux-test-project/ltp), in which `make -C testcases/kernel/syscalls` was done, for
Debian has no package of it. Each test runs with lock_a_page.c preloaded, so that it is traced, and both times alike.
What differs has to be in ltp.toml, with the reason; what is there and differs no more is told as well.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent
MLOCKWIPE = str(Path(sys.executable).with_name("mlockwipe"))
SECONDS = 600.0  # only a hang takes so long: fcntl14 forks 10,000 times
# What changes the machine, or needs a disk of its own. Only the sources tell.
_CHANGES_THE_MACHINE = re.compile(
    r"/proc/sys|/sys/|needs_device|mount_device|all_filesystems|SAFE_MOUNT|needs_cgroup|restore_wallclock|swapon|MADV_HWPOISON|"
    r"MADV_SOFT_OFFLINE|sysrq|tst_timed|needs_hugetlb|hugepages"
)
_SUMMARY = re.compile(r"^(passed|failed|broken|skipped|warnings)\s+(\d+)$", re.MULTILINE)
_RESULT = re.compile(r"\b(TPASS|TFAIL|TBROK|TCONF)\b")


@dataclass(frozen=True)
class Test:
    name: str
    command: tuple[str, ...]
    directory: Path


def selected(root: Path, directories: Sequence[str]) -> list[Test]:
    """Those of `runtest/syscalls` that are in `directories` and leave the machine as it is."""
    programs = {
        path.name: path.parent
        for directory in directories
        for path in sorted((root / "testcases/kernel/syscalls" / directory).rglob("*"))
        if path.is_file() and os.access(path, os.X_OK)
    }
    found = []
    for line in (root / "runtest/syscalls").read_text().splitlines():
        name, *command = line.split()[:10] or ["#"]
        if name.startswith("#") or not command or command[0] not in programs:
            continue
        directory = programs[command[0]]
        source = directory / f"{command[0].removesuffix('_64').removesuffix('_16')}.c"
        if source.exists() and _CHANGES_THE_MACHINE.search(source.read_text(errors="replace")):
            continue
        found.append(Test(name, (str(directory / command[0]), *command[1:]), directory))
    return found


def outcome(test: Test, prefix: Sequence[str], root: Path, library: Path) -> str:
    """How a test ended, and what it counted."""
    with tempfile.TemporaryDirectory(prefix="mlockwipe-ltp-") as directory:
        Path(directory).chmod(0o777)
        environment = os.environ | {
            "LTPROOT": str(root), "PATH": f"{test.directory}:{os.environ['PATH']}", "TMPDIR": directory,
            "KCONFIG_SKIP_CHECK": "1", "LTP_TIMEOUT_MUL": "4", "LTP_COLORIZE_OUTPUT": "0",
        }  # fmt: skip
        command = [*prefix, "env", f"LD_PRELOAD={library}", *test.command]
        with tempfile.TemporaryFile("w+", errors="replace") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment,
                cwd=directory, start_new_session=True,
            )  # fmt: skip
            try:
                ended = f"status {process.wait(SECONDS)}"
            except subprocess.TimeoutExpired:
                ended = "no end"
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            out.seek(0)
            said = out.read()
    summary = dict(_SUMMARY.findall(said))
    if not summary:
        words = _RESULT.findall(said)
        summary = {word: str(words.count(word)) for word in sorted(set(words))}
    return ", ".join((ended, *(f"{word} {number}" for word, number in summary.items() if number != "0")))


def compiled(directory: Path) -> Path:
    library = directory / "lock_a_page.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, HERE / "lock_a_page.c"], check=True)
    return library


def main(arguments: Sequence[str] | None = None, *, settings: Path = HERE / "ltp.toml") -> int:
    parser = argparse.ArgumentParser(prog="python -m mlockwipe_lab.ltp", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path, help="LTP's source tree, its system call tests built")
    parser.add_argument("--only", default="*", metavar="GLOB", help="run the tests with such names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen of each to FILE")
    options = parser.parse_args(arguments)
    root = options.directory.resolve()
    chosen_by = tomllib.loads(settings.read_text())
    accepted: dict[str, str] = chosen_by["accepted"]
    seen: dict[str, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="mlockwipe-ltp-") as directory, ThreadPoolExecutor(2) as pool:
        Path(directory).chmod(0o755)
        library = compiled(Path(directory))
        chosen = [test for test in selected(root, chosen_by["directories"]) if fnmatchcase(test.name, options.only)]

        def compare(test: Test) -> tuple[str, str]:
            bare = outcome(test, (), root, library)
            return bare, outcome(test, (MLOCKWIPE, "run", "-q", "--"), root, library)

        for test, pair in zip(chosen, pool.map(compare, chosen), strict=True):
            seen[test.name] = pair
            if pair[0] != pair[1]:
                print(
                    f"{test.name}: {pair[0]} | supervised: {pair[1]} | {accepted.get(test.name, 'NOT ACCEPTED')}",
                    flush=True,
                )
    different = {name for name, pair in seen.items() if pair[0] != pair[1]}
    gone = sorted(name for name in accepted if name in seen and name not in different)
    for name in gone:
        print(f"{name}: differs no more, take it out of ltp.toml")
    print(f"{len(seen)} tests, {len(different)} differ, {len(different - set(accepted))} of them not accepted")
    if options.json:
        options.json.write_text(json.dumps(seen, indent=2) + "\n")
    return int(not seen or bool(gone) or bool(different - set(accepted)))


if __name__ == "__main__":
    sys.exit(main())

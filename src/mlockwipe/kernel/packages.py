# SPDX-License-Identifier: MIT
"""Debian's packages of kernels: which is the newest, and its files unpacked in the cache."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from mlockwipe.errors import Refused

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def which(tool: str) -> str | None:
    """Where a tool is, those that only root's PATH has too."""
    return shutil.which(tool, path=_PATH)


def cache() -> Path:
    """Where kernels and their sources are kept, made when it is not there.

    Raises Refused.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home) / "mlockwipe" / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"{path}, for Debian's kernels, can't be made ({error.strerror}): name another place by XDG_CACHE_HOME"
        ) from error
    return path


def output(argv: list[str]) -> str:
    """What a command prints; nothing when it fails or isn't there."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def do(argv: list[str], place: Path, what: str) -> None:
    """Run a command in `place`. Raises Refused with `what` and the last line of its complaint; what make adds is
    only where it stood."""
    ran = subprocess.run(argv, cwd=place, capture_output=True, text=True, env={**os.environ, "PATH": _PATH})
    if ran.returncode:
        reasons = [line for line in ran.stderr.splitlines() if line.strip() and not re.match(r"make(\[|:)", line)]
        reason = (reasons or ["no reason given"])[-1].strip()
        raise Refused(f"{what}: {reason}")


def complaint(log: str) -> str:
    """The line that says why make failed: not of a file that is named after errors, and make's own where there is no
    other."""
    for sign in (r"\berror: |\bundefined reference\b", r"\*\*\*"):
        for line in log.splitlines():
            if re.search(sign, line, re.IGNORECASE):
                return line.strip()
    return "make failed"


def version(name: object) -> list[int]:
    """The numbers of a package's name or version, to sort by."""
    return [
        int(number) for number in re.findall(r"\d+", str(name).rpartition("/")[2].removesuffix("-amd64-unsigned"))
    ]


def candidate(package: str) -> str | None:
    """The version of a package that apt would install, or None."""
    found = re.search(r"^  Candidate: (\d\S*)$", output(["apt-cache", "policy", package]), re.MULTILINE)
    return found[1] if found else None


def fetch(package: str, place: Path, room: int, finish: Callable[[Path], None]) -> None:
    """Download a package, unpack it, let `finish` do the rest beside `place`, then move it there: what is in the
    cache is whole. `room`: bytes that it all takes.

    Raises Refused.
    """
    for tool, needs in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if which(tool) is None:
            raise Refused(f"fetching Debian's kernel needs {tool}: install {needs}")
    if shutil.disk_usage(place.parent).free < room:
        raise Refused(
            f"{place.parent} has no room for a kernel: make {room >> 20} MiB free there, or name another place by "
            "XDG_CACHE_HOME"
        )
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place.parent) as name:
        work = Path(name)
        do(["apt-get", "download", "-qq", package], work, f"{package} can't be downloaded")
        (archive,) = work.glob("*.deb")  # apt has checked it against the signed index
        do(["dpkg-deb", "--extract", archive.name, "root"], work, f"{archive.name} can't be unpacked")
        finish(work / "root")
        (work / "root").rename(place)

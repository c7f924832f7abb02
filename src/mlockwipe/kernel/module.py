# SPDX-License-Identifier: MIT
"""The module init_mlocked_on_free: its sources, the kernels it knows, and building it from a kernel's headers."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe.kernel.packages import cache, complaint, do, fetch, which
from mlockwipe.kernel.series import home

NAME = "init_mlocked_on_free"
SUPPORTED = ("6.1", "6.12")

TOOLS = {"make": "make", "gcc-12": "gcc-12"}

_ROOM = 384 << 20  # bytes: headers, what is common to their flavours, and kbuild
_SOURCES = ("Kbuild", "*.c", "*.h", "dkms.conf")


def sources() -> list[Path]:
    """The files that the module is built from."""
    place = home() / "module"
    return sorted(path for pattern in _SOURCES for path in place.glob(pattern))


def series_of(release: str) -> str:
    """The series, '6.12', that a kernel such as '6.12.117+deb12-amd64' belongs to.

    Raises Refused when the module doesn't know it.
    """
    found = re.match(r"\d+\.\d+(?=[.-]|$)", release)
    if found is None or found[0] not in SUPPORTED or "-rt-" in release:
        raise Refused(
            f"the module knows Debian's kernels of Linux {' and '.join(SUPPORTED)}, without -rt, not {release}"
        )
    return found[0]


def headers_package(release: str) -> str:
    return f"linux-headers-{release}"


def headers_for(release: str) -> Path:
    """The headers of a kernel: those that are installed, else Debian's in the cache. Raises Refused."""
    try:
        return installed_headers(release)
    except Refused:
        pass
    try:
        return fetched_headers(release)
    except Refused as error:
        package = headers_package(release)
        raise Refused(f"{error}: apt-get install {package}, or name the headers by --headers") from error


def installed_headers(release: str) -> Path:
    """Where the headers of a kernel are on this machine.

    Raises Refused with the package that has them.
    """
    place = Path("/lib/modules") / release / "build"
    if not (place / "Makefile").exists():
        raise Refused(f"the headers of {release} are not installed: apt-get install {headers_package(release)}")
    return place


def fetched_headers(release: str) -> Path:
    """Debian's headers of a kernel, unpacked in the cache; nothing is installed.

    Raises Refused.
    """
    package = headers_package(release)
    place = cache() / package
    if not place.is_dir():

        def complete(root: Path) -> None:
            (archive,) = root.parent.glob("*.deb")
            needs = _output(["dpkg-deb", "--field", archive.name, "Depends"], root.parent)
            for name in re.findall(r"linux-headers-[\w.+-]+-common|linux-kbuild-[\w.+-]+", needs):
                do(["apt-get", "download", "-qq", name], root.parent, f"{name} can't be downloaded")
                (more,) = root.parent.glob(f"{name}_*.deb")
                do(["dpkg-deb", "--extract", more.name, "root"], root.parent, f"{name} can't be unpacked")
            # Debian's Makefile of a flavour names the common one by where it would be installed.
            makefile = root / "usr" / "src" / package / "Makefile"
            makefile.write_text(makefile.read_text().replace("/usr/src/", f"{place}/usr/src/"))

        fetch(package, place, _ROOM, complete)
    return place / "usr" / "src" / package


def _output(argv: list[str], place: Path) -> str:
    return subprocess.run(argv, cwd=place, capture_output=True, text=True, check=True).stdout


def check_tools() -> None:
    """Raises Refused with the line for apt when something that a build needs is missing."""
    missing = [package for tool, package in TOOLS.items() if which(tool) is None]
    if missing:
        raise Refused(f"building the module needs more: apt-get install --no-install-recommends {' '.join(missing)}")


def build(release: str, headers: Path) -> Path:
    """Build the module for a kernel in the cache, if its sources are not those of the last time: the .ko.

    Raises Refused.
    """
    series_of(release)
    place = cache() / f"module-{release}"
    module, built_from = place / f"{NAME}.ko", place / ".built-from"
    now = "".join(f"== {path.name}\n{path.read_text()}" for path in sources()) + f"== {headers.resolve()}\n"
    if module.exists() and built_from.exists() and built_from.read_text() == now:
        return module
    check_tools()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in sources():
        shutil.copyfile(path, place / path.name)
    make(headers, place)
    built_from.write_text(now)
    return module


def make(headers: Path, place: Path, targets: Sequence[str] = ("modules",)) -> None:
    """Build the module from its sources in `place`, where the .ko is then, or other `targets`. Raises Refused."""
    # The module has no use for BTF, whose making would need pahole.
    command = ["make", f"-j{os.cpu_count() or 1}", "-C", str(headers), f"M={place}", "CONFIG_DEBUG_INFO_BTF_MODULES="]
    ran = subprocess.run([*command, *targets], capture_output=True, text=True)
    log = place / "make.log"
    log.write_text(ran.stdout + ran.stderr)
    if ran.returncode:
        raise Refused(f"the module can't be built: {complaint(log.read_text())}; all of it is in {log}")

# SPDX-License-Identifier: MIT
"""Kernels that the lab boots: Debian's, fetched into the cache, or any other by its path."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlockwipe.errors import Refused

SERIES = ("6.1", "6.12")  # of Debian 12

_MAGIC_AT, _MAGIC = 0x202, b"HdrS"  # Documentation/arch/x86/boot.rst: the header of a bzImage
_VERSION_AT = 0x20E
_ROOM = 640 << 20  # bytes for a package and what is in it: 80 and 410 MiB of 6.1, more of 6.12


@dataclass(frozen=True)
class Kernel:
    """`name`: as the user asked for it. `release`: as uname -r says. `image`: its bzImage. `modules`: the
    directory named after its release that holds its modules, or None."""

    name: str
    release: str
    image: Path
    modules: Path | None


def kernel(name: str) -> Kernel:
    """The kernel called 'debian-6.1' or 'debian-6.12', or the one at a path.

    Raises Refused.
    """
    series = name.removeprefix("debian-")
    if name != series and series in SERIES:
        return _debian(name, series)
    path = Path(name)
    if not path.exists():
        known = ", ".join(f"debian-{series}" for series in SERIES)
        raise Refused(f"there is no kernel {name}: name one of {known}, or the path of a bzImage")
    return _at(name, path)


def cache() -> Path:
    """Where kernels are kept, made when it is not there."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home) / "mlockwipe" / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"{path}, for Debian's kernels, can't be made ({error.strerror}): name another place by XDG_CACHE_HOME"
        ) from error
    return path


def _at(name: str, path: Path) -> Kernel:
    """A bzImage, whose modules lie where a package or `make modules_install` puts them, if it has any."""
    image = path.resolve()
    release = _release(image)
    modules = image.parent.parent / "lib" / "modules" / release
    return Kernel(name, release, image, modules if modules.is_dir() else None)


def _release(image: Path) -> str:
    """What uname -r will say."""
    try:
        with image.open("rb") as file:
            start = file.read(0x10000)
    except OSError as error:
        raise Refused(f"the kernel {image} can't be read: {error.strerror}") from error
    if start[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC:
        raise Refused(f"{image} is not a kernel: name the bzImage or vmlinuz of an x86-64 Linux")
    at = int.from_bytes(start[_VERSION_AT : _VERSION_AT + 2], "little") + 0x200
    version = re.match(rb"[\w.+~-]+", start[at:])
    if version is None:
        raise Refused(f"{image} does not say which Linux it is: it is damaged, or not a kernel")
    return version[0].decode(errors="replace")


# Debian's


def _debian(name: str, series: str) -> Kernel:
    """The newest package of the series that apt knows, unpacked in the cache; else the newest that is there."""
    package = _newest_package(series)
    if package is None:
        kept = sorted(cache().glob(f"linux-image-{series}.*-unsigned"), key=_version)
        if not kept:
            raise Refused(
                f"apt knows no package with Linux {series}: run it on Debian 12 after `apt-get update`, "
                "or name the path of a bzImage"
            )
        package = kept[-1].name
    place = cache() / package
    if not place.is_dir():
        _fetch(package, place)
    (image,) = (place / "boot").glob("vmlinuz-*")
    return _at(name, image)


def _newest_package(series: str) -> str | None:
    """The generic flavour: the cloud one has no 9p. The unsigned package is the one with the image in it."""
    names = _output(["apt-cache", "pkgnames", f"linux-image-{series}."])
    pattern = re.compile(rf"linux-image-{re.escape(series)}\.\d+(-\d+|\+deb\d+)(\+\d+)?-amd64-unsigned")
    return max(filter(pattern.fullmatch, names.split()), key=_version, default=None)


def _version(name: object) -> list[int]:
    return [
        int(number) for number in re.findall(r"\d+", str(name).rpartition("/")[2].removesuffix("-amd64-unsigned"))
    ]


def _output(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _fetch(package: str, place: Path) -> None:
    """Download, unpack and index beside `place`, then move there: what is in the cache is whole."""
    for tool, needs in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("depmod", "kmod")):
        if shutil.which(tool, path=_PATH) is None:
            raise Refused(f"fetching Debian's kernel needs {tool}: install {needs}")
    if shutil.disk_usage(place.parent).free < _ROOM:
        raise Refused(
            f"{place.parent} has no room for a kernel: make {_ROOM >> 20} MiB free there, or name another place by "
            "XDG_CACHE_HOME"
        )
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place.parent) as work:
        _do(["apt-get", "download", "-qq", package], work, f"{package} can't be downloaded")
        (archive,) = Path(work).glob("*.deb")  # apt has checked it against the signed index
        _do(["dpkg-deb", "--extract", archive.name, "root"], work, f"{archive.name} can't be unpacked")
        root = Path(work) / "root"
        (modules,) = (root / "lib" / "modules").iterdir()
        _do(["depmod", "-b", "root", modules.name], work, "its modules can't be indexed")
        root.rename(place)


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _do(argv: list[str], place: str, what: str) -> None:
    ran = subprocess.run(argv, cwd=place, capture_output=True, text=True, env={**os.environ, "PATH": _PATH})
    if ran.returncode:
        reason = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Refused(f"{what}: {reason}")

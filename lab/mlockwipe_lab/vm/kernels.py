# SPDX-License-Identifier: MIT
"""Kernels that the lab boots: Debian's, fetched into the cache or built there with the series, or any by its path."""

import re
from dataclasses import dataclass
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe.kernel.build import OnLine, build
from mlockwipe.kernel.packages import cache, do, fetch, output, version, which

SERIES = ("6.1", "6.12")  # of Debian 12
BUILT = ("patched", "unpatched")

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


def kernel(name: str, on_line: OnLine = lambda line: None) -> Kernel:
    """The kernel called 'debian-6.1' or 'debian-6.12'; 'patched-6.1' or 'patched-6.12', which is built from Debian's
    sources with the boot option init_mlocked_on_free, if it was not before; 'unpatched-6.1' or 'unpatched-6.12',
    which is the same without it; or the one at a path.

    Raises Refused.
    """
    kind, _, series = name.partition("-")
    if kind == "debian" and series in SERIES:
        return _debian(name, series)
    if kind in BUILT and series in SERIES:
        return _at(name, build(series, patched=kind == "patched", on_line=on_line).image)
    path = Path(name)
    if not path.exists():
        known = ", ".join(f"{kind}-{series}" for kind in ("debian", *BUILT) for series in SERIES)
        raise Refused(f"there is no kernel {name}: name one of {known}, or the path of a bzImage")
    return _at(name, path)


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
    said = re.match(rb"[\w.+~-]+", start[at:])
    if said is None:
        raise Refused(f"{image} does not say which Linux it is: it is damaged, or not a kernel")
    return said[0].decode(errors="replace")


# Debian's


def debian_release(series: str) -> str:
    """What uname -r says on Debian's newest kernel of the series. Raises Refused."""
    return _package(series).removeprefix("linux-image-").removesuffix("-unsigned")


def _debian(name: str, series: str) -> Kernel:
    package = _package(series)
    place = cache() / package
    if not place.is_dir():
        _fetch(package, place)
    (image,) = (place / "boot").glob("vmlinuz-*")
    return _at(name, image)


def _package(series: str) -> str:
    """The newest package of the series that apt knows; else the newest that is in the cache."""
    package = newest_package(series)
    if package is None:
        kept = sorted(cache().glob(f"linux-image-{series}.*-unsigned"), key=version)
        if not kept:
            raise Refused(
                f"apt knows no package with Linux {series}: run it on Debian 12 after `apt-get update`, "
                "or name the path of a bzImage"
            )
        package = kept[-1].name
    return package


def newest_package(series: str) -> str | None:
    """The generic flavour: the cloud one has no 9p. The unsigned package is the one with the image in it."""
    names = output(["apt-cache", "pkgnames", f"linux-image-{series}."])
    pattern = re.compile(rf"linux-image-{re.escape(series)}\.\d+(-\d+|\+deb\d+)(\+\d+)?-amd64-unsigned")
    return max(filter(pattern.fullmatch, names.split()), key=version, default=None)


def _fetch(package: str, place: Path) -> None:
    def index(root: Path) -> None:
        (modules,) = (root / "lib" / "modules").iterdir()
        do(["depmod", "-b", str(root), modules.name], root, "its modules can't be indexed")

    if which("depmod") is None:
        raise Refused("fetching Debian's kernel needs depmod: install kmod")
    fetch(package, place, _ROOM, index)

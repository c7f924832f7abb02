# SPDX-License-Identifier: MIT
"""Building a kernel with the series, or without: sources, configuration, make."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe.kernel.packages import cache, candidate, complaint, do, fetch, version
from mlockwipe.kernel.series import apply, home, patches, without

CONFIGS = ("lab", "debug")

TOOLS = {
    "gcc": "gcc",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "patch": "patch",
    "xz": "xz-utils",
}
HEADERS = {"/usr/include/libelf.h": "libelf-dev", "/usr/include/openssl/ssl.h": "libssl-dev"}

_NAME = "CONFIG_INIT_MLOCKED_ON_FREE"
_OPTION = f"{_NAME}=y\n"  # which only the series knows
_ROOM = 3 << 30  # bytes: 150 MiB of a package, 1.6 GiB of sources, and a build

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """`image`: the bzImage. `seconds` of make. `compiled`: how many files were compiled, 0 when nothing changed."""

    image: Path
    compiled: int

    def copy_to(self, place: Path) -> Path:
        """Put bzImage, System.map and the configuration into a directory: the path of the first."""
        place.mkdir(parents=True, exist_ok=True)
        top = self.image.parents[3]
        for file, name in ((self.image, "bzImage"), (top / "System.map", "System.map"), (top / ".config", "config")):
            shutil.copyfile(file, place / name)
        return place / "bzImage"


def check_tools() -> None:
    """Raises Refused with the line for apt when something that a build needs is missing."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    missing += [package for header, package in HEADERS.items() if not Path(header).exists()]
    if missing:
        raise Refused(
            f"building a kernel needs more programs: apt-get install --no-install-recommends {' '.join(missing)}"
        )


def build(
    series: str,
    config: str = "lab",
    *,
    patched: bool = True,
    source: Path | None = None,
    extra: Sequence[Path] = (),
    on_line: OnLine = lambda line: None,
) -> Built:
    """Build the series, and the patches in `extra` on top of it, in the cache: the first time whole, later what
    changed. `config`: 'lab', 'debug' or the path of a .config. `patched`: False for the same without the series, in
    a tree and with objects of its own. `source`: a tree to build from; it is patched.

    Raises Refused.
    """
    chosen = [*patches(series), *extra]
    settings = _settings(config)
    check_tools()
    if source is not None:
        tree = source.resolve()
        _check_tree(tree)
        with _alone(tree / ".lock-mlockwipe", on_line):
            apply(chosen, tree)
            return _build(tree, tree / f".build-{Path(config).name}", config, settings, on_line)
    place = cache() / f"build-{series}-{Path(config).name}"
    with _alone(cache() / f".lock-{series}", on_line):
        tree = debian_source(series)
        _check_tree(tree)
        if patched:
            apply(chosen, tree)
            return _build(tree, place, config, settings, on_line)
        stock = tree.with_name(f"unpatched-{tree.name}")
        if not stock.is_dir():
            without(chosen, tree, stock)
        place = place.with_name(f"{place.name}-unpatched")
        return _build(stock, place, config, settings.replace(_OPTION, ""), on_line)


def _check_tree(tree: Path) -> None:
    if not (tree / "Kbuild").exists() or not (tree / "MAINTAINERS").exists():
        raise Refused(f"{tree} is no tree of Linux sources")


@contextmanager
def _alone(lock: Path, on_line: OnLine) -> Iterator[None]:
    """One build at a time: a second one would patch and compile the same files under the first. Linux takes the lock
    from a build that dies."""
    try:
        file = lock.open("w")
    except OSError as error:
        raise Refused(f"nothing can be built in {lock.parent} ({error.strerror}): it has to be writable") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_line(f"waiting for another build in {lock.parent}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(tree: Path, place: Path, config: str, settings: str, on_line: OnLine) -> Built:
    place.mkdir(exist_ok=True)
    _configure(tree, place, settings, whole=config not in CONFIGS)
    compiled = _make(tree, place, ["bzImage"], on_line)
    return Built(place / "arch/x86/boot/bzImage", compiled)


def debian_source(series: str) -> Path:
    """Debian's newest sources of a series, unpacked in the cache; else the newest that are there."""
    package = f"linux-source-{series}"
    newest = candidate(package)
    if newest is None:
        kept = sorted(cache().glob(f"{package}_*"), key=version)
        if not kept:
            raise Refused(
                f"apt knows no package {package}: run it on Debian 12 after `apt-get update`, "
                "or name a tree of sources with --source"
            )
        return kept[-1]
    place = cache() / f"{package}_{newest.replace('/', '_')}"
    if not place.is_dir():

        def unpack(root: Path) -> None:
            (found,) = (root / "usr" / "src").glob("linux-source-*.tar.xz")
            archive = found.rename(root.parent / found.name)
            shutil.rmtree(root / "usr")  # of the package; the sources have a usr of their own
            do(
                ["tar", "--extract", "--strip-components=1", f"--file={archive}"],
                root,
                f"{archive.name} can't be unpacked",
            )

        fetch(package, place, _ROOM, unpack)
    return place


def _settings(config: str) -> str:
    """The options to ask for. The debug kernel is the lab's with more, and a .config that does not know the option of
    the series, as no distribution's does, has it too.
    """
    if config in CONFIGS:
        names = CONFIGS[: CONFIGS.index(config) + 1]
        return "".join((home() / "configs" / f"{name}.config").read_text() for name in names)
    try:
        settings = Path(config).read_text()
    except OSError as error:
        raise Refused(
            f"the configuration {config} can't be read ({error.strerror}): it is one of {', '.join(CONFIGS)}, "
            "or the path of a .config"
        ) from error
    return settings if re.search(rf"\b{_NAME}\b", settings) else f"{settings.rstrip()}\n{_OPTION}"


def _configure(tree: Path, place: Path, settings: str, *, whole: bool) -> None:
    """Make .config, if the settings are not those of the last time: from a whole .config, or from the few options
    that a kernel of the lab has, everything else off."""
    kept = place / ".settings"
    if kept.exists() and kept.read_text() == settings:
        return
    make = ["make", "--silent", "-C", str(tree), f"O={place}"]
    what = "the kernel can't be configured"
    if whole:
        (place / ".config").write_text(settings)
        do([*make, "olddefconfig"], place, what)
        needed = {_OPTION.strip()}
    else:
        asked = place / ".asked"
        asked.write_text(settings)
        do([*make, f"KCONFIG_ALLCONFIG={asked}", "allnoconfig"], place, what)
        needed = {line for line in settings.splitlines() if line.endswith("=y")}
    made = set((place / ".config").read_text().splitlines())
    if refused := [line for line in settings.splitlines() if line in needed - made]:
        raise Refused(f"these sources don't take {', '.join(refused)} with this configuration")
    kept.write_text(settings)


def _make(tree: Path, place: Path, targets: Sequence[str], on_line: OnLine) -> int:
    """Run make: how many files were compiled. The log stays beside what was built."""
    command = ["make", f"-j{os.cpu_count() or 1}", "-C", str(tree), f"O={place}", *targets]
    log = place / "make.log"
    compiled = 0
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as make,
    ):
        assert make.stdout is not None
        for line in make.stdout:
            file.write(line)
            compiled += line.startswith("  CC ")
            on_line(line.rstrip())
    if make.returncode:
        raise Refused(f"the kernel can't be built: {complaint(log.read_text())}; all of it is in {log}")
    return compiled

# SPDX-License-Identifier: MIT
"""The machine that is asked: /proc, /sys and /boot below a root, and what only a system call can tell.

Nothing here judges. A reader returns what the kernel says or raises the OSError that it got; the parsers
take text and never raise on text the kernel could not have written.
"""

import errno
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mlockwipe.linux import libseccomp, mm, seccomp_filter
from mlockwipe.requirements import may_trace


def try_memfd_secret() -> int:
    """0 when memfd_secret(2) hands out a file, else the errno: ENOSYS for a kernel without it or booted
    with secretmem.enable=0."""
    try:
        os.close(mm.memfd_secret())
    except OSError as error:
        return error.errno or 0
    return 0


def try_seccomp_notification() -> int:
    """0 when seccomp(2) answers for user notification, else the errno."""
    try:
        seccomp_filter.notification_sizes()
    except OSError as error:
        return error.errno or 0
    return 0


def try_libseccomp() -> str | None:
    """The version of libseccomp ('2.5.4'), or None when the dynamic linker finds none."""
    try:
        return libseccomp.version()
    except ImportError:
        return None


@dataclass(frozen=True)
class Swap:
    """A line of /proc/swaps."""

    path: str
    kind: str  # 'partition' or 'file'
    kib: int


@dataclass(frozen=True)
class Limit:
    """A line of /proc/PID/limits; None is unlimited."""

    soft: int | None
    hard: int | None


@dataclass(frozen=True)
class Machine:
    """What the checks ask. Tests hand another root and other answers."""

    root: Path = Path("/")
    architecture: str = field(default_factory=lambda: os.uname().machine)
    may_trace: Callable[[], bool] = may_trace
    memfd_secret: Callable[[], int] = try_memfd_secret
    seccomp_notification: Callable[[], int] = try_seccomp_notification
    libseccomp: Callable[[], str | None] = try_libseccomp

    def read(self, path: str) -> str:
        """The text of `path` ('proc/swaps') below the root, without the newline at its end. Bytes that are
        no UTF-8 (a process may name itself so) are replaced."""
        return (self.root / path).read_text(encoding="utf-8", errors="replace").rstrip("\n")

    def executable(self, pid: int) -> str | None:
        """The path of the program that a process executes; None for one that this user may not look at."""
        try:
            return os.readlink(self.root / f"proc/{pid}/exe")
        except OSError:
            return None

    def read_if_there(self, path: str) -> str | None:
        """As read, but None where the kernel has no such file; any other error is raised, and the same one where the
        whole of /proc is missing, which says nothing of the kernel."""
        try:
            return self.read(path)
        except FileNotFoundError:
            if path.startswith("proc/sys/") and self.lacks_proc:
                raise
            return None

    @property
    def lacks_proc(self) -> bool:
        return not (self.root / "proc/sys/kernel/osrelease").exists()

    @cached_property
    def release(self) -> str:
        return self.read("proc/sys/kernel/osrelease")

    @cached_property
    def boot_line(self) -> dict[str, str | None]:
        return parse_boot_line(self.read("proc/cmdline"))

    @cached_property
    def config(self) -> dict[str, str] | None:
        """The kernel's configuration, or None where neither the kernel nor the distribution kept it."""
        try:
            packed = (self.root / "proc/config.gz").read_bytes()
        except FileNotFoundError:
            text = self.read_if_there(f"boot/config-{self.release}")
            return None if text is None else parse_config(text)
        try:
            # zlib alone, 16 + MAX_WBITS is the gzip format: the module gzip would load a dozen others
            text = zlib.decompress(packed, 16 + zlib.MAX_WBITS).decode(errors="replace")
        except zlib.error as error:
            raise OSError(errno.EIO, f"no gzip data: {error}", "/proc/config.gz") from error
        return parse_config(text)

    @cached_property
    def swaps(self) -> list[Swap]:
        text = self.read_if_there("proc/swaps")  # not there without CONFIG_SWAP
        return [] if text is None else parse_swaps(text)

    def limit(self, name: str) -> Limit:
        """A limit of this process by its name in /proc/self/limits ('Max core file size')."""
        limits = parse_limits(self.read("proc/self/limits"))
        if name not in limits:
            raise OSError(errno.ENODATA, f"no line '{name}'", "/proc/self/limits")
        return limits[name]

    def is_encrypted(self, swap: Swap) -> bool:
        """Whether a block device is a dm-crypt mapping. A swap file is never: what lies beneath a file
        system is not to be seen from here."""
        if swap.kind != "partition":
            return False
        name = swap.path.rsplit("/", 1)[-1]
        uuid = self.read_if_there(f"sys/class/block/{name}/dm/uuid")
        return uuid is not None and uuid.startswith("CRYPT-")

    def pids(self) -> Iterator[int]:
        """The processes in /proc that this user may see (hidepid), in order."""
        names = (entry.name for entry in (self.root / "proc").iterdir())
        found = sorted(int(name) for name in names if name.isascii() and name.isdigit())
        if not found and self.lacks_proc:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/proc")
        yield from found


def parse_boot_line(text: str) -> dict[str, str | None]:
    """Kernel parameters by name, the last of a name counting; None for one without '='.

    As next_arg() and parse_args() of the kernel do: double quotes hold blanks together, '-' and '_' are the
    same in a name, and what follows '--' is for init.
    """
    parameters: dict[str, str | None] = {}
    for word in _words(text):
        name, equals, value = word.partition("=")
        if word == "--":
            break
        if name:
            parameters[name.replace("-", "_")] = value if equals else None
    return parameters


def _words(text: str) -> Iterator[str]:
    word, quoted = "", False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character.isspace() and not quoted:
            if word:
                yield word
            word = ""
        else:
            word += character
    if word:
        yield word


def parse_bool(text: str | None) -> bool | None:
    """A kernel boolean as kstrtobool() reads it; None for what it refuses (the default then stays)."""
    match (text or "")[:2].lower():
        case "on":
            return True
        case "of":
            return False
        case start if start[:1] in ("1", "y", "t"):
            return True
        case start if start[:1] in ("0", "n", "f"):
            return False
    return None


def parse_config(text: str) -> dict[str, str]:
    """A kernel configuration as {'SECRETMEM': 'y'}; 'n' for '# CONFIG_SECRETMEM is not set', which shows
    that this kernel knows the word."""
    config = {}
    for line in text.splitlines():
        match line.split(maxsplit=2):
            case ["#", name, "is not set"] if name.startswith("CONFIG_"):
                config[name.removeprefix("CONFIG_")] = "n"
            case [word, *_] if word.startswith("CONFIG_") and "=" in word:
                name, _, value = line.strip().partition("=")
                config[name.removeprefix("CONFIG_")] = value.strip('"')
    return config


def parse_swaps(text: str) -> list[Swap]:
    """/proc/swaps: a heading, then Filename, Type, Size in KiB, Used and Priority; blanks in a name are
    \\040."""
    swaps = []
    for line in text.splitlines()[1:]:
        match line.split():
            case [path, kind, kib, *_] if kib.isascii() and kib.isdigit():
                swaps.append(Swap(unescape(path), kind, int(kib)))
    return swaps


def unescape(text: str) -> str:
    """Undo the kernel's seq_path() escapes of blank, tab, newline and backslash."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def parse_limits(text: str) -> dict[str, Limit]:
    """/proc/PID/limits: the name in 26 columns, then the soft and the hard limit in 21 each."""
    limits = {}
    for line in text.splitlines()[1:]:
        match line[26:].split()[:2]:
            case [soft, hard] if _is_limit(soft) and _is_limit(hard):
                limits[line[:26].strip()] = Limit(_limit(soft), _limit(hard))
    return limits


def _is_limit(text: str) -> bool:
    return text == "unlimited" or (text.isascii() and text.isdigit())


def _limit(text: str) -> int | None:
    return None if text == "unlimited" else int(text)


def parse_fields(text: str) -> dict[str, str]:
    """/proc/PID/status as {'VmLck': '64 kB'}."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}

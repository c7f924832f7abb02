# SPDX-License-Identifier: MIT
"""The module on this machine: installed by DKMS, loaded at boot, switched on and off."""

import os
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlockwipe import __version__
from mlockwipe.errors import Refused
from mlockwipe.kernel.module import NAME, installed_headers, series_of, sources
from mlockwipe.kernel.packages import which

SCHEMA = 1
PATIENCE = 5.0  # seconds: a page that waits is looked at once a second at the latest
COUNTERS = ("calls", "wiped", "deferred", "shared", "failed")

_PACKAGE = "mlockwipe"
_AT_BOOT = {  # what `enable` leaves in /etc
    f"etc/modules-load.d/{NAME}.conf": f"{NAME}\n",
    f"etc/modprobe.d/{NAME}.conf": f"options {NAME} enabled=1\n",
}
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

# What insmod and modprobe say (strerror of the errno of init_module(2)), and what it means.
_REFUSALS = {
    "Operation not permitted": "the kernel is locked down and takes no module that is not signed by a key that it "
    "trusts",
    "Key was rejected by service": "the kernel takes no module that is not signed by a key that it trusts",
    "Required key not available": "the kernel takes no module that is not signed by a key that it trusts",
}
# What rmmod says while a page waits: in its own words when it reads so in the count of references, else the kernel's.
_WAITS = ("is in use", "Resource temporarily unavailable")
_SIGN = "enroll DKMS's own key: mokutil --import /var/lib/dkms/mok.pub, then reboot and confirm it"


@dataclass(frozen=True)
class System:
    """The machine that is changed. Tests hand another root."""

    root: Path = Path("/")
    release: str = field(default_factory=lambda: os.uname().release)
    uid: int = field(default_factory=os.geteuid)

    @property
    def module(self) -> Path:
        return self.root / "sys/module" / NAME

    @property
    def sources(self) -> Path:
        return self.root / "usr/src" / f"{_PACKAGE}-{__version__}"

    def read(self, path: str) -> str | None:
        """The text of a file of the kernel's; None where it has none."""
        try:
            return (self.root / path).read_text().strip()
        except OSError:
            return None

    def parameter(self, name: str) -> str | None:
        return self.read(f"sys/module/{NAME}/parameters/{name}")

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PATH": _PATH})


@dataclass(frozen=True)
class ModuleStatus:
    """`supported`: whether the module knows this kernel. `headers`: are they installed? `dkms`: what DKMS says
    of it, None when it is not there. `enabled`, `inherit`, `counters` (pages since it was loaded; wrapped calls):
    None when it is not loaded. `at_boot`: whether it is loaded and on from the next boot on. `refused`: why
    the kernel would not load it, None when it would. `compact_unevictable_allowed`: the sysctl of that name."""

    kernel: str
    supported: bool
    headers: bool
    dkms: str | None
    loaded: bool
    enabled: bool | None
    inherit: bool | None
    at_boot: bool
    counters: dict[str, int] | None
    refused: str | None
    compact_unevictable_allowed: bool | None


def status(system: System) -> ModuleStatus:
    """What is so at this moment. Changes nothing, and needs no privilege."""
    loaded = system.module.is_dir()
    values = {name: system.parameter(name) for name in COUNTERS}
    said = _dkms_status(system)
    compact = system.read("proc/sys/vm/compact_unevictable_allowed")
    return ModuleStatus(
        kernel=system.release,
        supported=_is_supported(system.release),
        headers=(system.root / "lib/modules" / system.release / "build/Makefile").exists(),
        dkms=said or None,
        loaded=loaded,
        enabled=_switch(system.parameter("enabled")),
        inherit=_switch(system.parameter("inherit")),
        at_boot=all(system.read(path) == text.strip() for path, text in _AT_BOOT.items()),
        counters={name: int(value or 0) for name, value in values.items()} if loaded else None,
        refused=_would_be_refused(system),
        compact_unevictable_allowed=None if compact is None else compact != "0",
    )


def to_json(found: ModuleStatus) -> dict[str, object]:
    return {"schema": SCHEMA, **asdict(found)}


def _is_supported(release: str) -> bool:
    try:
        series_of(release)
    except Refused:
        return False
    return True


def _switch(value: str | None) -> bool | None:
    return None if value is None else value == "Y"


def _dkms_status(system: System) -> str:
    if which("dkms") is None or system.root != Path("/"):
        return ""
    return system.run("dkms", "status", f"{_PACKAGE}/{__version__}", "-k", system.release).stdout.strip()


def _would_be_refused(system: System) -> str | None:
    """Whether a module without a signature that the kernel trusts is refused: DKMS signs by a key of its own, which
    has to be enrolled."""
    lockdown = system.read("sys/kernel/security/lockdown") or ""
    for mode in ("integrity", "confidentiality"):
        if f"[{mode}]" in lockdown:
            return f"lockdown={mode}: only modules signed by a key that the kernel trusts are loaded; {_SIGN}"
    if system.read("sys/module/module/parameters/sig_enforce") == "Y":
        return f"module.sig_enforce: only modules signed by a key that the kernel trusts are loaded; {_SIGN}"
    return None


# Changes


def check_root(system: System, what: str) -> None:
    """Raises Refused."""
    if system.uid != 0:
        raise Refused(f"{what} the module changes this machine: run it as root")


def install(system: System) -> str:
    """Build the module for the running kernel and all to come, and install it: what to say. It is not loaded.

    Raises Refused, and then nothing is left of it.
    """
    check_root(system, "installing")
    series_of(system.release)
    if which("dkms") is None:
        raise Refused("the module is installed through DKMS: apt-get install --no-install-recommends dkms")
    installed_headers(system.release)
    if "installed" in _dkms_status(system):
        return f"{_PACKAGE}/{__version__} is installed for {system.release} already"
    ours = not system.sources.exists()  # else they are those of the package mlockwipe-dkms
    try:
        if ours:
            system.sources.mkdir(parents=True)
            for path in sources():
                shutil.copyfile(path, system.sources / path.name)
        _do(system, "dkms", "install", f"{_PACKAGE}/{__version__}", "-k", system.release)
    except (Refused, OSError) as error:
        system.run("dkms", "remove", f"{_PACKAGE}/{__version__}", "--all")
        if ours:
            shutil.rmtree(system.sources, ignore_errors=True)
        raise Refused(f"the module is not installed: {error}") from error
    return f"installed for {system.release}: `mlockwipe kernel module enable` switches it on"


def enable(system: System) -> str:
    """Load the module and switch it on, now and at every boot: what to say.

    Raises Refused, and then it is as it was.
    """
    check_root(system, "enabling")
    if not system.module.is_dir():
        series_of(system.release)
        loaded = system.run("modprobe", NAME)
        if loaded.returncode:
            raise Refused(f"the module is not loaded: {_reason(system, loaded.stderr)}")
    (system.module / "parameters/enabled").write_text("1")
    for path, text in _AT_BOOT.items():
        (system.root / path).write_text(text)
    return "on, and from every boot on: locked memory is zeroed when it is released, in all processes"


def disable(system: System) -> str:
    """Switch the module off, now and at every boot: what to say. It stays loaded, and costs nothing that counts.

    Raises Refused.
    """
    check_root(system, "disabling")
    _off(system)
    return "off, and not loaded at boot any more"


def _off(system: System) -> None:
    for path in _AT_BOOT:
        (system.root / path).unlink(missing_ok=True)
    if system.module.is_dir():
        (system.module / "parameters/enabled").write_text("0")


def uninstall(system: System) -> str:
    """Switch the module off, unload it and remove it from this machine: what to say. Raises Refused."""
    check_root(system, "uninstalling")
    _off(system)
    if system.module.is_dir():
        unload(system)
    if which("dkms") is not None and _dkms_status(system):
        _do(system, "dkms", "remove", f"{_PACKAGE}/{__version__}", "--all")
    shutil.rmtree(system.sources, ignore_errors=True)
    return "removed"


def unload(system: System) -> None:
    """Unload the module, which the kernel refuses while a page waits to be wiped. Most wait for the LRU batch of
    another CPU, which the module has emptied a moment later. Raises Refused."""
    deadline = time.monotonic() + PATIENCE
    while (gone := system.run("rmmod", NAME)).returncode:
        if not any(words in gone.stderr for words in _WAITS):
            raise Refused(f"the module is off, but stays loaded: {gone.stderr.strip() or 'no reason given'}")
        if time.monotonic() > deadline:
            raise Refused(
                "the module is off, but stays loaded: pages that it has still to wipe are referred to by others "
                "(pipes, direct I/O); try again when those are done"
            )
        time.sleep(0.1)


def _do(system: System, *argv: str) -> None:
    ran = system.run(*argv)
    if ran.returncode:
        lines = [line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        wrong = [line for line in lines if "rror" in line] or lines or ["no reason given"]
        raise Refused(f"{' '.join(argv[:2])} failed: {wrong[0]}")


def _reason(system: System, said: str) -> str:
    """Why the kernel did not load it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for words, meaning in _REFUSALS.items():
        if words in said:
            return f"{meaning}; {_SIGN}"
    if "not found" in said:
        return f"it is not installed for {system.release}; `mlockwipe kernel module install` does so"
    told = [line for line in system.run("dmesg").stdout.splitlines() if f"{NAME}: not loaded: " in line]
    if told:
        return told[-1].partition("not loaded: ")[2]
    return (lines or ["no reason given"])[-1]

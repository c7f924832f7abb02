# SPDX-License-Identifier: MIT
"""What protects released secrets on a machine and what doesn't: a function for each fact.

A check returns the state of one fact, what the kernel said, and a sentence of what to do. A reading that
fails is 'unknown' with the reason.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlockwipe.errors import Refused
from mlockwipe.requirements import (
    NO_LIBSECCOMP,
    NO_NOTIFICATION,
    OLDEST,
    parse_release,
    why_no_filter,
    why_no_kernel,
    why_no_tracing,
)
from mlockwipe.status.machine import Limit, Machine, Swap, parse_bool

State = Literal["good", "warn", "bad", "info", "unknown"]
"""good: protects, or is no danger. warn: a way for a secret to survive. bad: a protection that does not
work. info: a fact without a judgement. unknown: could not be read."""


@dataclass(frozen=True)
class Check:
    """A line of `mlockwipe status`."""

    name: str
    state: State
    value: str
    advice: str


Finding = tuple[State, str, str]

NOTHING_TO_DO = "Nothing to do."


def run_checks(machine: Machine) -> list[Check]:
    """Every check, in the order of CHECKS: what the supervisor needs, what else wipes, where copies go."""
    return [_run(name, check, machine) for name, check in CHECKS.items()]


def _run(name: str, check: Callable[[Machine], Finding], machine: Machine) -> Check:
    try:
        state, value, advice = check(machine)
    except OSError as error:
        where = f"Reading {error.filename}" if error.filename else "Asking the kernel"
        remedy = "mount -t proc proc /proc" if machine.lacks_proc else "ask again as root, outside of any container"
        advice = f"{where} failed ({error.strerror}): {remedy}."
        return Check(name, "unknown", error.strerror or str(error), advice)
    return Check(name, state, value, advice)


# What the supervisor needs


def _no_run(lack: str) -> str:
    """The advice, of a sentence of mlockwipe.requirements."""
    return f"'mlockwipe run' can't work here, because {lack}."


def _kernel(machine: Machine) -> Finding:
    value = f"{machine.release} {machine.architecture}"
    if (lack := why_no_kernel(machine.architecture, machine.release)) is not None:
        return "bad", value, _no_run(lack)
    if parse_release(machine.release) is None:
        return "unknown", value, f"This is no version number; 'mlockwipe run' needs Linux {OLDEST} or newer."
    return "good", value, NOTHING_TO_DO


def _seccomp_notification(machine: Machine) -> Finding:
    actions = machine.read_if_there("proc/sys/kernel/seccomp/actions_avail")
    if actions is None or "user_notif" not in actions.split():
        return "bad", "not in this kernel", _no_run(NO_NOTIFICATION)
    error = machine.seccomp_notification()
    if error:
        return "bad", os.strerror(error), _no_run(why_no_filter(OSError(error, os.strerror(error))))
    return "good", "available", NOTHING_TO_DO


def _libseccomp(machine: Machine) -> Finding:
    version = machine.libseccomp()
    if version is None:
        return "bad", "not found", _no_run(NO_LIBSECCOMP)
    return "good", version, NOTHING_TO_DO


def _ptrace_scope(machine: Machine) -> Finding:
    scope = machine.read_if_there("proc/sys/kernel/yama/ptrace_scope")
    match scope:
        case None:
            advice = "A program's secrets can be read by every process of its user: boot with Yama (lsm=...,yama)."
            return "warn", "no Yama", advice
        case "0":
            advice = (
                "A program's secrets can be read by every process of its user: sysctl kernel.yama.ptrace_scope=1."
            )
            return "warn", "0, same user", advice
        case "1":
            return "good", "1, descendants only", NOTHING_TO_DO
        case "2" | "3":
            value = "2, root only" if scope == "2" else "3, nobody"
            lack = why_no_tracing(scope, machine.may_trace)
            if lack is not None:
                return "bad", value, _no_run(lack)
            return "good", value, "Nothing to do; but only root can use 'mlockwipe run'."
    return "unknown", scope, "This kernel knows a scope that mlockwipe doesn't: upgrade mlockwipe."


# What wipes without the supervisor


def init_on_free_is_on(machine: Machine) -> bool | None:
    """Whether the kernel zeroes every page it frees; None where its configuration is not to be had."""
    return _boot_switch(machine, "init_on_free", "INIT_ON_FREE_DEFAULT_ON", (5, 3))


def _boot_switch(machine: Machine, option: str, default: str, since: tuple[int, int]) -> bool | None:
    if (parse_release(machine.release) or since) < since:
        return False
    asked = parse_bool(machine.boot_line.get(option))
    if asked is not None:
        return asked
    return None if machine.config is None else machine.config.get(default) == "y"


def _init_on_free(machine: Machine) -> Finding:
    match init_on_free_is_on(machine):
        case True:
            return (
                "good",
                "on",
                "Nothing to do: every page is zeroed when it is freed, for about 5 % of speed.",
            )
        case False:
            return (
                "warn",
                "off",
                "A released page keeps its bytes until it is used again: run programs that hold secrets "
                "under 'mlockwipe run', or boot with init_on_free=1.",
            )
    return "unknown", "no kernel configuration", _no_config(machine, "init_on_free=1")


def _no_config(machine: Machine, option: str) -> str:
    return (
        f"Neither /proc/config.gz nor /boot/config-{machine.release} is there to tell the default; boot "
        f"with {option} to be sure."
    )


def _init_on_alloc(machine: Machine) -> Finding:
    advice = "Nothing to do: it zeroes a page when it is used again, not when a secret leaves it."
    match _boot_switch(machine, "init_on_alloc", "INIT_ON_ALLOC_DEFAULT_ON", (5, 3)):
        case True:
            return "info", "on", advice
        case False:
            return "info", "off", advice
    return "unknown", "no kernel configuration", _no_config(machine, "init_on_alloc=1")


_MODULE = "sys/module/init_mlocked_on_free"


def init_mlocked_on_free_is_on(machine: Machine) -> bool | None:
    """Whether the kernel, by itself or by a module, zeroes locked memory that is released; None where it
    can't."""
    enabled = machine.read_if_there(f"{_MODULE}/parameters/enabled")
    if enabled is not None:
        return parse_bool(enabled) or False
    # A kernel without the option hands it on to init and says nothing, so the boot line alone is no proof.
    config = machine.config or {}
    if not any(name.startswith("INIT_MLOCKED_ON_FREE") for name in config):
        return None
    default = "INIT_MLOCKED_ON_FREE_DEFAULT_ON"
    return _boot_switch(machine, "init_mlocked_on_free", default, (0, 0))


def _init_mlocked_on_free(machine: Machine) -> Finding:
    is_module = (machine.root / _MODULE).exists()
    match init_mlocked_on_free_is_on(machine):
        case True:
            return (
                "good",
                "on",
                "Nothing to do: locked memory is zeroed when it is released, in all processes.",
            )
        case False if is_module:
            return "bad", "loaded, but off", "Turn it on: mlockwipe kernel module enable (as root)."
        case False:
            return "bad", "in this kernel, but off", "Boot with init_mlocked_on_free=1."
    if is_module:
        return "unknown", "loaded", f"/{_MODULE}/parameters/enabled is not there; load a newer module."
    if "init_mlocked_on_free" in machine.boot_line:
        if machine.config is None:
            return (
                "unknown",
                "on the boot line",
                "Without its configuration a kernel doesn't tell whether it knows the option; install the "
                f"kernel's /boot/config-{machine.release}.",
            )
        return (
            "bad",
            "on the boot line, but not in this kernel",
            "This kernel doesn't know the option: boot one that was built with it, or use 'mlockwipe run'.",
        )
    advice = "Nothing to do: 'mlockwipe run' needs no special kernel."
    if _has_module(machine.release):
        advice += " For all programs, without it: mlockwipe kernel module install, then enable (as root)."
    return "info", "not in this kernel", advice


def _has_module(release: str) -> bool:
    from mlockwipe.kernel.module import series_of  # it takes a while to import

    try:
        series_of(release)
    except Refused:
        return False
    return release.endswith("-amd64")  # Debian's


def _memfd_secret(machine: Machine) -> Finding:
    match machine.memfd_secret():
        case 0:
            advice = "Nothing to do: a program may keep secrets off the kernel's direct map, zeroed when freed."
            return "good", "available", advice
        case errno.ENOSYS:
            advice = "Boot with secretmem.enable=1 (Linux 5.14 or newer, CONFIG_SECRETMEM) for programs that use it."
            return "info", "not available", advice
        case error:
            reason = os.strerror(error)
            advice = f"memfd_secret(2) failed ({reason}); ask again outside of any container."
            return "unknown", reason, advice


# How much a program may lock


def _memlock_limit(machine: Machine) -> Finding:
    limit = machine.limit("Max locked memory")
    value = _kib(limit.soft)
    if limit.soft is None or limit.soft >= 8 << 20:  # 8 MiB is the kernel's own default since 5.16
        return "good", value, NOTHING_TO_DO
    return (
        "warn",
        value,
        "A program whose mlock fails for want of this limit keeps its secrets unlocked, and nothing wipes "
        "them: raise it by 'ulimit -l' or LimitMEMLOCK=.",
    )


def _kib(limit: int | None) -> str:
    return "unlimited" if limit is None else f"{limit // 1024} KiB"


# Where copies of a secret go


def _swap(machine: Machine) -> Finding:
    swaps = [swap for swap in machine.swaps if not _is_zram(swap)]
    if not swaps:
        return "good", "none", NOTHING_TO_DO
    plain = [swap for swap in swaps if not machine.is_encrypted(swap)]
    value = ", ".join(f"{swap.path} {swap.kib // 1024} MiB" for swap in swaps)
    if not plain:
        return "good", f"{value} (dm-crypt)", NOTHING_TO_DO
    names = " ".join(swap.path for swap in plain)
    advice = (
        "Locked memory stays out of swap, but copies that a forked child inherits do not: encrypt it by "
        f"dm-crypt, or swapoff {names}."
    )
    return "warn", value, advice


def _is_zram(swap: Swap) -> bool:
    return swap.path.rsplit("/", 1)[-1].startswith("zram")


def _zram(machine: Machine) -> Finding:
    zrams = [swap for swap in machine.swaps if _is_zram(swap)]
    if not zrams:
        return "good", "not used for swap", NOTHING_TO_DO
    value = ", ".join(f"{swap.path} {swap.kib // 1024} MiB" for swap in zrams)
    advice = (
        "Swapped copies of unlocked memory lie in RAM, compressed, and nothing wipes them: "
        f"swapoff {' '.join(swap.path for swap in zrams)} where that counts."
    )
    return "warn", value, advice


def _zswap(machine: Machine) -> Finding:
    enabled = machine.read_if_there("sys/module/zswap/parameters/enabled")
    if enabled is None:
        return "good", "not in this kernel", NOTHING_TO_DO
    if not parse_bool(enabled):
        return "good", "off", NOTHING_TO_DO
    if not machine.swaps:
        return "good", "on, but no swap is in use", NOTHING_TO_DO
    advice = (
        "Swapped copies of unlocked memory lie in RAM, compressed, and nothing wipes them: "
        "echo N > /sys/module/zswap/parameters/enabled (as root)."
    )
    return "warn", "on", advice


def _hibernation(machine: Machine) -> Finding:
    states = (machine.read_if_there("sys/power/state") or "").split()
    if "disk" not in states:
        return "good", "not available", NOTHING_TO_DO
    if "[disabled]" in (machine.read_if_there("sys/power/disk") or "").split():
        return "good", "disabled", NOTHING_TO_DO
    plain = [swap for swap in machine.swaps if not _is_zram(swap) and not machine.is_encrypted(swap)]
    if not plain:
        return (
            "info",
            "available",
            "Nothing to do: no swap without encryption is in use that could take an image.",
        )
    advice = "Hibernation writes all memory, locked memory too, to swap that is not encrypted: boot with nohibernate."
    return "warn", "available", advice


def _core_dumps(machine: Machine) -> Finding:
    pattern = machine.read_if_there("proc/sys/kernel/core_pattern")
    if pattern is None:
        return "good", "not in this kernel", NOTHING_TO_DO
    if pattern.startswith("|"):
        handler = pattern[1:].split(maxsplit=1)[:1]
        return (
            "warn",
            f"piped to {handler[0] if handler else 'nothing'}",
            "A crash hands locked memory to this program, whatever RLIMIT_CORE says: sysctl "
            "kernel.core_pattern=core and ulimit -c 0, or let the program use MADV_DONTDUMP.",
        )
    limit: Limit = machine.limit("Max core file size")
    if limit.soft == 0:
        return "good", "RLIMIT_CORE 0", NOTHING_TO_DO
    advice = "A crash writes locked memory to a file: ulimit -c 0, or let the program use MADV_DONTDUMP."
    return "warn", f"RLIMIT_CORE {_kib(limit.soft)}", advice


def _ksm(machine: Machine) -> Finding:
    match machine.read_if_there("sys/kernel/mm/ksm/run"):
        case None:
            return "good", "not in this kernel", NOTHING_TO_DO
        case "1":
            advice = (
                "Pages that KSM has merged are shared and not wiped: echo 2 > /sys/kernel/mm/ksm/run (as "
                "root), or keep MADV_MERGEABLE off memory with secrets."
            )
            return "warn", "running", advice
        case "0" | "2":
            return "good", "not running", NOTHING_TO_DO
        case other:
            return "unknown", other, "This kernel knows a state that mlockwipe doesn't: upgrade mlockwipe."


def _compact_unevictable(machine: Machine) -> Finding:
    match machine.read_if_there("proc/sys/vm/compact_unevictable_allowed"):
        case None:
            return "good", "no compaction", NOTHING_TO_DO
        case "0":
            return "good", "0", NOTHING_TO_DO
        case value if init_on_free_is_on(machine):
            return "good", value, "Nothing to do: init_on_free zeroes the page that compaction leaves."
        case value:
            advice = (
                "Compaction may move a locked page, and the old one keeps its bytes: "
                "sysctl vm.compact_unevictable_allowed=0."
            )
            return "warn", value, advice


CHECKS: dict[str, Callable[[Machine], Finding]] = {
    "kernel": _kernel,
    "seccomp user notification": _seccomp_notification,
    "libseccomp": _libseccomp,
    "Yama ptrace_scope": _ptrace_scope,
    "init_mlocked_on_free": _init_mlocked_on_free,
    "init_on_free": _init_on_free,
    "init_on_alloc": _init_on_alloc,
    "memfd_secret": _memfd_secret,
    "RLIMIT_MEMLOCK": _memlock_limit,
    "swap": _swap,
    "zram": _zram,
    "zswap": _zswap,
    "hibernation": _hibernation,
    "core dumps": _core_dumps,
    "KSM": _ksm,
    "compact_unevictable_allowed": _compact_unevictable,
}

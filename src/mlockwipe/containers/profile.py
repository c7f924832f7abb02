# SPDX-License-Identifier: MIT
"""A seccomp profile for container runtimes: that of a base, and the notifications of filter one.

The format is that of Docker and Podman (containers/common, pkg/seccomp), which is the one of the OCI runtime
specification (config-linux.md, seccomp) with conditions on capabilities and architectures beside it.

libseccomp takes no condition for a call that another rule names without one. So the base's rule for such a call is
divided: what is to be notified, and conditions for all the rest.
"""

import json
from pathlib import Path
from typing import Any

from mlockwipe.errors import Refused
from mlockwipe.linux.mman import MAP_LOCKED
from mlockwipe.linux.prctl import PR_SET_DUMPABLE
from mlockwipe.linux.seccomp_filter import FLAG_NEW_LISTENER, SET_MODE_FILTER
from mlockwipe.memory.filters import OWN_MLOCK2, OWN_PRCTL

BASES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")  # of Podman, in its own order
UNCONFINED = "unconfined"

_ARCHITECTURE = "amd64"
_NOTIFY = "SCMP_ACT_NOTIFY"
_ALLOW = "SCMP_ACT_ALLOW"

Rule = dict[str, Any]


def _equal(index: int, value: int) -> Rule:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _differs(index: int, value: int) -> Rule:
    return {"index": index, "value": value, "op": "SCMP_CMP_NE"}


def _masked(index: int, mask: int, value: int) -> Rule:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


_UNDUMPABLE = (_equal(0, PR_SET_DUMPABLE), _equal(1, 0))
_MMAP: list[tuple[str, tuple[Rule, ...]]] = [
    (_NOTIFY, (_masked(3, MAP_LOCKED, MAP_LOCKED),)),
    (_ALLOW, (_masked(3, MAP_LOCKED, 0),)),
]
# Filter one (memory/filters.py), for each call with what is left to be allowed.
_DIVIDED: dict[str, list[tuple[str, tuple[Rule, ...]]]] = {
    "mlock": [(_NOTIFY, ())],
    "mlock2": [(_NOTIFY, (_differs(3, OWN_MLOCK2),)), (_ALLOW, (_equal(3, OWN_MLOCK2),))],
    "mlockall": [(_NOTIFY, ())],
    "mmap": _MMAP,
    "mmap2": _MMAP,
    "prctl": [
        (_NOTIFY, (*_UNDUMPABLE, _differs(2, OWN_PRCTL))),
        (_ALLOW, (*_UNDUMPABLE, _equal(2, OWN_PRCTL))),
        (_ALLOW, (_UNDUMPABLE[0], _differs(1, 0))),
        (_ALLOW, (_differs(0, PR_SET_DUMPABLE),)),
    ],
    "seccomp": [
        (_NOTIFY, (_equal(0, SET_MODE_FILTER), _masked(1, FLAG_NEW_LISTENER, FLAG_NEW_LISTENER))),
        (_ALLOW, (_equal(0, SET_MODE_FILTER), _masked(1, FLAG_NEW_LISTENER, 0))),
        (_ALLOW, (_differs(0, SET_MODE_FILTER),)),
    ],
}


def profile(base: str | None, socket: str) -> str:
    """The profile as JSON text. `base`: a file, UNCONFINED, or None for Podman's own. Refused."""
    document: dict[str, Any] = {"defaultAction": _ALLOW, "syscalls": []}
    if base != UNCONFINED:
        document = _read(_base(base))
    if any(rule.get("action") == _NOTIFY for rule in document["syscalls"]) or document.get("listenerPath"):
        raise Refused(f"{base} has a notification listener already, and the kernel allows one only")
    document["syscalls"] = [part for rule in document["syscalls"] for part in _divided(rule)]
    if document["defaultAction"] == _ALLOW:
        named = {name for rule in document["syscalls"] for name in rule["names"]}
        document["syscalls"] += [
            part for name in _DIVIDED if name not in named for part in _divided({"names": [name], "action": _ALLOW})
        ]
        # What the default allows is not to be named again.
        document["syscalls"] = [rule for rule in document["syscalls"] if rule["action"] != _ALLOW]
    document["listenerPath"] = socket
    return json.dumps(document, indent=2) + "\n"


def for_runtime(profile_text: str) -> str:
    """The profile as runtimes themselves take it (`linux.seccomp` of config.json): rules without conditions.

    It is for a container on this machine that has no capability beyond the usual ones.
    """
    document = json.loads(profile_text)
    rules = []
    for rule in document["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        is_for_here = _ARCHITECTURE in (includes.get("arches") or [_ARCHITECTURE])
        if is_for_here and not includes.get("caps") and _ARCHITECTURE not in (excludes.get("arches") or ()):
            rules.append({key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)})
    resolved = {
        "defaultAction": document["defaultAction"],
        "defaultErrnoRet": document.get("defaultErrnoRet"),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "listenerPath": document["listenerPath"],
        "syscalls": rules,
    }
    return json.dumps({key: value for key, value in resolved.items() if value is not None}, indent=2) + "\n"


def _base(named: str | None) -> str:
    if named is not None:
        return named
    found = next((path for path in BASES if Path(path).exists()), None)
    if found is None:
        raise Refused(
            "no profile was found to begin with: name that of your runtime (--base FILE), or --base unconfined"
        )
    return found


def _read(path: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"the profile {path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise Refused(f"the profile {path} is no JSON: {error}") from None
    rules = document.get("syscalls") if isinstance(document, dict) else None
    if not isinstance(rules, list) or not isinstance(document.get("defaultAction"), str):
        raise Refused(f"{path} is no seccomp profile: it has no defaultAction, or no list of syscalls")
    for rule in rules:
        if not isinstance(rule, dict) or not isinstance(rule.get("action"), str):
            raise Refused(f"{path} is no seccomp profile: one of its rules has no action")
        if isinstance(name := rule.pop("name", None), str):  # the older form of Docker's
            rule.setdefault("names", [name])
        if not isinstance(rule.get("names"), list):
            raise Refused(f"{path} is no seccomp profile: one of its rules names no calls")
    return document


def _divided(rule: Rule) -> list[Rule]:
    """A rule of the base, without the calls that are to be notified, and the rules for these."""
    ours = [name for name in rule["names"] if name in _DIVIDED]
    if not ours or rule["action"] != _ALLOW:
        return [rule]  # what the base forbids stays forbidden
    if rule.get("args"):
        raise Refused(
            f"the profile allows {', '.join(ours)} on conditions of its own, which can't be combined with ours"
        )
    rest = [name for name in rule["names"] if name not in _DIVIDED]
    return [
        *([{**rule, "names": rest}] if rest else []),
        *(
            {**rule, "names": [name], "action": action, "args": list(conditions)}
            for name in ours
            for action, conditions in _DIVIDED[name]
        ),
    ]

# SPDX-License-Identifier: MIT
"""The seccomp profile for container runtimes."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from mlockwipe.containers.profile import UNCONFINED, for_runtime, profile
from mlockwipe.errors import Refused

NOTIFIED = {"mlock", "mlock2", "mlockall", "mmap", "mmap2", "prctl", "seccomp"}


def written(tmp_path: Path, **document: object) -> str:
    path = tmp_path / "base.json"
    path.write_text(json.dumps(document))
    return str(path)


def allows(*rules: dict[str, Any], default: str = "SCMP_ACT_ERRNO") -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(rules)}


def actions(document: dict[str, Any], call: str, arguments: tuple[int, ...]) -> set[str]:
    """What the rules say of a call."""

    def holds(condition: dict[str, Any]) -> bool:
        value = arguments[condition["index"]]
        match condition["op"]:
            case "SCMP_CMP_EQ":
                return bool(value == condition["value"])
            case "SCMP_CMP_NE":
                return bool(value != condition["value"])
            case "SCMP_CMP_MASKED_EQ":
                return bool(value & condition["value"] == condition["valueTwo"])
        raise AssertionError(condition)

    rules = [rule for rule in document["syscalls"] if call in rule["names"]]
    return {rule["action"] for rule in rules if all(map(holds, rule.get("args") or ()))}


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"])
def test_every_call_has_one_action_whatever_its_arguments_are(tmp_path: Path, default: str) -> None:
    base = written(tmp_path, **allows({"names": [*NOTIFIED, "read"], "action": "SCMP_ACT_ALLOW"}, default=default))
    document = json.loads(profile(base, "/s"))
    for call in NOTIFIED:
        notified = 0
        for arguments in itertools.product((0, 1, 4), (0, 1, 8, 9), (0, 0x6D6C6F63), (0, 0x2000, 0x2022)):
            found = actions(document, call, arguments) or {document["defaultAction"]}
            assert len(found) == 1
            notified += found == {"SCMP_ACT_NOTIFY"}
            assert found <= {"SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW"}
        assert notified > 0
    assert actions(document, "mmap", (0, 0, 0, 0x2022)) == {"SCMP_ACT_NOTIFY"}
    assert actions(document, "mmap", (0, 0, 0, 0x22)) <= {"SCMP_ACT_ALLOW"}
    assert document["listenerPath"] == "/s"


def test_what_the_base_forbids_stays_forbidden(tmp_path: Path) -> None:
    base = written(
        tmp_path,
        **allows(
            {"names": ["read", "mmap"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mlock", "ptrace"], "action": "SCMP_ACT_ERRNO"},
        ),
    )
    document = json.loads(profile(base, "/s"))
    assert actions(document, "mlock", ()) == {"SCMP_ACT_ERRNO"}
    assert actions(document, "mlockall", ()) == set()
    assert actions(document, "read", ()) == {"SCMP_ACT_ALLOW"}


def test_conditions_on_capabilities_stay_with_every_part(tmp_path: Path) -> None:
    rule = {"names": ["mlockall"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_IPC_LOCK"]}}
    (found,) = json.loads(profile(written(tmp_path, **allows(rule)), "/s"))["syscalls"]
    assert found["includes"] == rule["includes"]
    assert found["action"] == "SCMP_ACT_NOTIFY"


def test_without_a_base_nothing_but_notifications_is_added() -> None:
    document = json.loads(profile(UNCONFINED, "/s"))
    assert document["defaultAction"] == "SCMP_ACT_ALLOW"
    assert {rule["action"] for rule in document["syscalls"]} == {"SCMP_ACT_NOTIFY"}
    assert {name for rule in document["syscalls"] for name in rule["names"]} == NOTIFIED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("[]", "is no seccomp profile"),
        ("{}", "is no seccomp profile"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]}', "is no seccomp profile"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}', "names no calls"),
        (
            json.dumps(allows({"names": ["mmap"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0}]})),
            "allows mmap on conditions of its own",
        ),
        (json.dumps(allows({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})), "has a notification listener already"),
        (json.dumps({**allows(), "listenerPath": "/other"}), "has a notification listener already"),
    ],
)
def test_what_is_no_base_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(Refused, match=said):
        profile(str(tmp_path / "base.json"), "/s")


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="can't be read: No such file"):
        profile(str(tmp_path / "none"), "/s")


def test_a_runtime_gets_no_rule_that_takes_a_capability_or_another_machine(tmp_path: Path) -> None:
    base = written(
        tmp_path,
        **allows(
            {"names": ["read", "mlock"], "action": "SCMP_ACT_ALLOW", "includes": {}, "args": []},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"names": ["s390_runtime_instr"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
            {"names": ["riscv_flush_icache"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["riscv64"]}},
        ),
    )
    found = json.loads(for_runtime(profile(base, "/s")))
    assert [(rule["names"], rule["action"]) for rule in found["syscalls"]] == [
        (["read"], "SCMP_ACT_ALLOW"),
        (["mlock"], "SCMP_ACT_NOTIFY"),
        (["clone"], "SCMP_ACT_ALLOW"),
        (["arch_prctl"], "SCMP_ACT_ALLOW"),
    ]
    assert found["listenerPath"] == "/s"
    assert all(rule.keys() <= {"names", "action", "args", "errnoRet"} for rule in found["syscalls"])

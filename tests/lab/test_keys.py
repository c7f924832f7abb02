# SPDX-License-Identifier: MIT
"""`mlockwipe lab keys`: what counts as left behind, what can't be judged, and what the exit status says of it."""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mlockwipe import cli
from mlockwipe.carriers import CARRIERS
from mlockwipe.carriers.carrier import Carrier
from mlockwipe_lab.key_managers import PASSPHRASE, KeyManager, Needle, judge, lab_keys
from mlockwipe_lab.key_managers.hold import FOUND, NEW, NOT_FOUND, Hit, Remain, Result
from mlockwipe_lab.key_managers.judge import Run, hold_in, judge_carrier
from mlockwipe_lab.key_managers.registry import KEY_MANAGERS, key_manager
from mlockwipe_lab.key_managers.verdict import Count, Verdict, held_against, verdict_of
from mlockwipe_lab.vm.kernels import Kernel, kernel
from mlockwipe_lab.vm.machine import boot

KERNEL = Kernel("a kernel", "6.0", Path("/nowhere"), None)
LOCKED = Hit("key", 0x5010, "locked", "anonymous of agent")
COPY = Hit("key", 0x9020, "unlocked", "[heap] of agent")


def result(carrier: str, before: Sequence[Hit], after: Sequence[Remain] = (), **more: Any) -> Result:
    return Result(
        "agent", carrier, **{"traced": True, "moment": FOUND, "before": [*before], "after": [*after], **more}
    )


def left(hit: Hit, state: str = "free") -> Remain:
    return Remain(hit.label, hit.address, state, hit.page)


def run(carrier: str, *verdicts: Verdict, **more: Any) -> Run:
    return Run(KERNEL, CARRIERS[carrier], verdicts=[*verdicts], **more)


LEAKS = verdict_of(result("none", [LOCKED], [left(LOCKED)]))
WIPES = verdict_of(result("supervisor", [LOCKED]))


def test_what_is_left_of_locked_memory_convicts_a_carrier_and_is_wanted_without_one() -> None:
    bare = run("none", LEAKS)
    wiped = run("supervisor", WIPES)
    leaked = run("supervisor", verdict_of(result("supervisor", [LOCKED], [left(LOCKED)])))
    assert [one.verdicts[0].verdict for one in (bare, wiped, leaked)] == ["leaked", "wiped", "leaked"]
    assert bare.ok
    assert wiped.ok
    assert not leaked.ok


@pytest.mark.parametrize("state", ["free", "anonymous, unmapped", "kernel", "page cache"])
def test_a_locked_page_counts_whatever_it_is_after(state: str) -> None:
    assert verdict_of(result("supervisor", [LOCKED], [left(LOCKED, state)])).verdict == "leaked"


def test_an_inherited_copy_counts_as_locked() -> None:
    inherited = replace(LOCKED, page="inherited")
    assert verdict_of(result("supervisor", [inherited], [left(inherited)])).verdict == "leaked"
    assert verdict_of(result("supervisor", [inherited])).verdict == "wiped"


@pytest.mark.parametrize("page", ["unlocked", "unlocked again", "other process", "kernel"])
def test_a_copy_elsewhere_is_counted_and_convicts_nobody(page: str) -> None:
    copy = replace(COPY, page=page)
    verdict = verdict_of(result("supervisor", [LOCKED, copy], [left(copy)]))
    assert verdict.verdict == "wiped"
    assert verdict.locked == (Count(1, 1), Count(0, 0))
    assert verdict.others == (Count(1, 1), Count(1, 1))


def test_a_copy_that_was_nowhere_before_convicts_a_carrier() -> None:
    verdict = verdict_of(result("supervisor", [LOCKED], [Remain("key", 0xB000, "anonymous", NEW)]))
    assert verdict.verdict == "leaked"
    assert verdict.locked == (Count(1, 1), Count(1, 1))
    file = Remain(PASSPHRASE, 0xB000, "page cache", NEW)
    assert verdict_of(result("supervisor", [LOCKED], [file])).verdict == "wiped"


def test_pages_and_places_are_counted() -> None:
    twice = replace(LOCKED, address=LOCKED.address + 64)
    verdict = verdict_of(result("none", [LOCKED, twice, COPY], [left(LOCKED)]))
    assert verdict.locked == (Count(1, 2), Count(1, 1))
    assert verdict.others == (Count(1, 1), Count(0, 0))


def test_a_passphrase_counts_in_memory_of_the_program_only() -> None:
    word, file = replace(LOCKED, label=PASSPHRASE), Hit(PASSPHRASE, 0x7000, "page cache", "")
    copy = replace(COPY, label=PASSPHRASE, page="unlocked again")
    after = [left(word), left(file, "page cache"), left(copy)]
    verdict = verdict_of(result("supervisor", [LOCKED, word, file, copy], after))
    assert verdict.verdict == "leaked"
    assert verdict.locked == (Count(1, 2), Count(1, 1))
    assert verdict.others == (Count(1, 1), Count(1, 1))


# What can't be judged


def test_a_secret_that_is_not_found_before_is_unproven_and_never_passes() -> None:
    for carrier in ("none", "supervisor"):
        verdict = verdict_of(result(carrier, [], moment=NOT_FOUND, tries=60))
        assert verdict.verdict == "unproven"
        assert verdict.reason == "its secret was not found in memory at any of 60 moments"
        assert not run(carrier, verdict).ok


def test_locks_that_cannot_be_traced_leave_it_unproven() -> None:
    assert verdict_of(result("supervisor", [COPY], [left(COPY)], traced=False)).verdict == "unproven"
    assert verdict_of(result("supervisor", [LOCKED], traced=False)).verdict == "unproven"
    assert verdict_of(result("supervisor", [LOCKED], [left(LOCKED)], traced=False)).verdict == "leaked"


def test_a_control_that_finds_nothing_of_locked_memory_makes_the_judge_blind() -> None:
    nothing = verdict_of(result("none", [LOCKED]))
    assert nothing.verdict == "unproven"
    blind = run("none", nothing, replace(LEAKS, key_manager="another"))
    assert blind.blind == ["agent"]
    assert not blind.ok


def test_a_secret_that_is_not_locked_proves_nothing() -> None:
    verdict = verdict_of(result("none", [COPY], [left(COPY)]))
    assert verdict.verdict == "not locked"
    assert not run("none", verdict).ok
    assert run("none", verdict, replace(LEAKS, key_manager="another")).ok


@pytest.mark.parametrize("control", [{}, {"agent": "unproven"}, {"agent": "not locked"}])
def test_what_was_not_found_without_a_carrier_is_not_wiped_by_one(control: dict[str, str]) -> None:
    assert held_against(control, WIPES).verdict == "unproven"
    assert held_against({"agent": "leaked"}, WIPES) == WIPES


def test_what_is_left_convicts_whatever_was_found_without_a_carrier() -> None:
    leaked = verdict_of(result("supervisor", [LOCKED], [left(LOCKED)]))
    assert held_against({}, leaked) == leaked


def test_a_secret_that_a_carrier_keeps_from_being_locked_is_unproven() -> None:
    verdict = verdict_of(result("supervisor", [COPY]))
    assert held_against({"agent": "leaked"}, verdict).verdict == "unproven"
    assert held_against({"agent": "not locked"}, verdict) == verdict


def test_a_failure_of_one_key_manager_is_a_failure() -> None:
    assert not run("supervisor", WIPES, Verdict("another", "failed", "it does not come up")).ok
    assert not run("supervisor", WIPES, failed="the guest is gone").ok


# A key manager that is missing


MISSING = KeyManager(
    "nobody", "not there", {"no-such-program": "no-such-package"}, lambda _: [], lambda *_: _refuse()
)
NOT_INSTALLED = "no-such-program is not installed: apt-get install no-such-package"


def _refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("it is not there, and nothing needs a machine")


MISSING = KeyManager("nobody", "not there", {"no-such-program": "no-such-package"}, _refuse, _refuse)


def test_a_key_manager_that_is_missing_is_named_and_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "boot", _refuse)
    skipped = judge_carrier(KERNEL, CARRIERS["none"], [MISSING])
    assert skipped.verdicts == [Verdict("nobody", "skipped", NOT_INSTALLED)]
    assert not skipped.ok  # nothing was judged
    assert run("none", *skipped.verdicts, LEAKS).ok


def test_a_library_that_is_missing_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "boot", _refuse)
    manager = replace(MISSING, needs={"libnone.so.1": "libnone1", "libc.so.6": "libc6", "sh": "dash"})
    (verdict,) = judge_carrier(KERNEL, CARRIERS["none"], [manager]).verdicts
    assert verdict.reason == "libnone.so.1 is not installed: apt-get install libnone1"


# The command


class Lab:
    """A stand-in for the machines: what each carrier is said to have left."""

    def __init__(self) -> None:
        self.results = {
            "none": [LEAKS],
            "init_on_free": [verdict_of(result("init_on_free", [LOCKED, COPY]))],
            "supervisor": [verdict_of(result("supervisor", [LOCKED, COPY], [left(COPY)]))],
        }
        self.asked: list[tuple[str, list[str]]] = []

    def judge_carrier(
        self, kernel: Kernel, carrier: Carrier, managers: Sequence[KeyManager], on_verdict: Callable[..., None]
    ) -> Run:
        self.asked.append((carrier.name, [manager.name for manager in managers]))
        here = run(carrier.name, *self.results[carrier.name])
        for verdict in here.verdicts:
            on_verdict(here, verdict)
        return here


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab()
    monkeypatch.setattr(judge, "judge_carrier", lab.judge_carrier)
    monkeypatch.setattr(lab_keys, "check_tools", lambda: None)
    monkeypatch.setattr(lab_keys, "kernel", lambda name, on_line: KERNEL)
    return lab


def test_all_carriers_and_key_managers_are_judged_no_carrier_first(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["lab", "keys", "--carrier", "supervisor", "--carrier", "none", "--manager", "gpg-d*"]) == 0
    assert cli.main(["lab", "keys"]) == 0
    assert lab.asked[0] == ("none", ["gpg-decrypt-rsa4096", "gpg-decrypt-stream"])
    assert [carrier for carrier, _ in lab.asked] == ["none", "supervisor", "none", "init_on_free", "supervisor"]
    assert lab.asked[-1][1] == [manager.name for manager in KEY_MANAGERS]
    out, err = capsys.readouterr()
    assert "agent" in out
    assert "1 (1) -> 1 (1)" in out
    assert "supervisor: wiped 1, left nothing of what was locked" in out
    assert err == ""


@pytest.mark.parametrize(
    ("carrier", "verdict", "says"),
    [
        ("supervisor", verdict_of(result("supervisor", [LOCKED], [left(LOCKED)])), "not: left nothing"),
        ("supervisor", verdict_of(result("supervisor", [], moment=NOT_FOUND)), "nothing could be judged"),
        ("supervisor", Verdict("agent", "failed", "it does not come up"), "it does not come up"),
        ("none", verdict_of(result("none", [LOCKED])), "the judge is blind for agent"),
        ("none", Verdict("agent", "skipped", NOT_INSTALLED), NOT_INSTALLED),
    ],
)
def test_what_is_not_as_it_must_be_is_status_1_and_said(
    lab: Lab, carrier: str, verdict: Verdict, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.results[carrier] = [verdict]
    assert cli.main(["lab", "keys"]) == 1
    assert says in capsys.readouterr().out


def test_json_has_a_schema_and_every_place(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    assert cli.main(["lab", "keys", "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["schema"] == 1
    assert [(one["carrier"], one["ok"]) for one in document["runs"]] == [
        ("none", True),
        ("init_on_free", True),
        ("supervisor", True),
    ]
    (told,) = document["runs"][2]["results"]
    assert told["verdict"] == "wiped"
    assert told["locked"] == {"before": {"pages": 1, "hits": 1}, "after": {"pages": 0, "hits": 0}}
    assert told["others"] == {"before": {"pages": 1, "hits": 1}, "after": {"pages": 1, "hits": 1}}
    assert told["after"] == [{"label": "key", "address": "0x9020", "state": "free", "was": "unlocked"}]


def test_a_name_that_no_key_manager_has_is_a_usage_error(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["lab", "keys", "--manager", "vault"])
    assert end.value.code == 2
    assert "no key manager matches 'vault': there are gpg-sign-rsa4096, " in capsys.readouterr().err
    assert lab.asked == []


# In real machines


def in_machines(test: Callable[..., Any]) -> Callable[..., Any]:
    for mark in (
        pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86"),
        pytest.mark.needs_program("busybox", "busybox-static"),
        pytest.mark.needs_program("depmod", "kmod"),
        pytest.mark.timeout(900),
    ):
        test = mark(test)
    return test


@in_machines
def test_the_supervisor_wipes_what_is_left_without_it() -> None:
    carriers = [CARRIERS[name] for name in ("supervisor", "none")]
    bare, supervised = judge.judge(kernel("debian-6.1"), carriers, [key_manager("python-service"), MISSING])
    assert [told(bare), told(supervised)] == [["skipped", "leaked"], ["skipped", "wiped"]]
    assert bare.ok
    assert supervised.ok


@in_machines
def test_a_carrier_that_does_nothing_is_convicted_and_a_secret_that_is_not_there_is_unproven() -> None:
    does_nothing = replace(CARRIERS["none"], name="does-nothing")
    service = key_manager("python-service")

    def another_secret(directory: Path) -> list[Needle]:
        return [Needle(needle.label, secrets.token_bytes(32)) for needle in service.prepare(directory)]

    with boot(kernel("debian-6.1"), append=does_nothing.append) as machine:
        leaked = verdict_of(hold_in(machine, does_nothing, service))
        nowhere = verdict_of(hold_in(machine, does_nothing, replace(service, prepare=another_secret), tries=2))
    assert leaked.verdict == "leaked"
    assert not Run(KERNEL, does_nothing, verdicts=[leaked]).ok
    assert nowhere.verdict == "unproven"
    assert nowhere.reason == "its secret was not found in memory at any of 2 moments"


def told(run: Run) -> list[str]:
    assert run.failed is None, run.console[-3000:]
    return [verdict.verdict for verdict in run.verdicts]

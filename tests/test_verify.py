# SPDX-License-Identifier: MIT
"""`mlockwipe verify`: which cases under which carriers, what it writes, and when it is content."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlockwipe import cli, verify_here
from mlockwipe.carriers import CARRIERS
from mlockwipe.carriers.carrier import Carrier
from mlockwipe.contract.result import Result
from mlockwipe.errors import Refused
from mlockwipe.report_file import ReportFile
from tests.support.running import MLOCKWIPE, TIMEOUT, marked

NAMES = ["W1-whole", "W7-segv", "L1-munlocked"]


class Contract:
    """A stand-in for the runner: three cases, whose verdicts a test may change."""

    def __init__(self) -> None:
        self.verdicts = {
            "none": {"W1-whole": "leaked", "W7-segv": "leaked", "L1-munlocked": "kept"},
            "supervisor": {"W1-whole": "wiped", "W7-segv": "wiped", "L1-munlocked": "kept"},
        }
        self.carriers: list[Carrier] = []

    def all_cases(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in NAMES]

    def verify(
        self, carriers: Sequence[Carrier], *, cases: Sequence[Any], on_result: Callable[[str, Result], None]
    ) -> dict[str, list[Result]]:
        self.carriers += carriers
        results: dict[str, list[Result]] = {}
        for carrier in carriers:
            for case in cases:
                row = case.name.split("-")[0]
                expected = "kept" if row.startswith("L") else "wiped"
                result = Result(case.name, row, self.verdicts[carrier.name][case.name], expected, 16, 0)
                results.setdefault(carrier.name, []).append(result)
                on_result(carrier.name, result)
        return results


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch) -> Contract:
    contract = Contract()
    monkeypatch.setattr(verify_here, "all_cases", contract.all_cases)
    monkeypatch.setattr(verify_here, "verify", contract.verify)
    return contract


def test_none_and_supervisor_stand_side_by_side(contract: Contract, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify"]) == 0
    assert [carrier.name for carrier in contract.carriers] == ["none", "supervisor"]
    out, err = capsys.readouterr()
    assert all(word in out for word in ["W1", "W7", "L1", "leaked", "wiped", "kept"])
    assert err == ""  # no progress where stderr is no terminal


@pytest.mark.parametrize(
    ("carrier", "case", "verdict"),
    [
        ("none", "W1-whole", "wiped"),  # the negative control: a judge that can't see a leak
        ("none", "L1-munlocked", "damaged"),
        ("supervisor", "W1-whole", "leaked"),
        ("supervisor", "W7-segv", "failed"),
        ("supervisor", "L1-munlocked", "damaged"),
    ],
)
def test_one_unexpected_verdict_is_status_1(
    contract: Contract, carrier: str, case: str, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    contract.verdicts[carrier][case] = verdict
    assert cli.main(["verify"]) == 1
    assert cli.main(["verify", "--carrier", carrier]) == 1
    other = "none" if carrier == "supervisor" else "supervisor"
    assert cli.main(["verify", "--carrier", other]) == 0
    assert "not as the contract says" in capsys.readouterr().out


def test_a_carrier_that_is_named_twice_runs_once(contract: Contract) -> None:
    assert cli.main(["verify", "--carrier", "supervisor", "--carrier", "supervisor"]) == 0
    assert [carrier.name for carrier in contract.carriers] == ["supervisor"]


def test_case_is_a_glob(contract: Contract, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--case", "W*", "--json", "-"]) == 0
    runs = json.loads(capsys.readouterr().out)["carriers"]
    assert [record["case"] for record in runs["none"]] == ["W1-whole", "W7-segv"]


def test_a_glob_without_a_case_is_a_usage_error(contract: Contract, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "--case", "W99-*"])
    assert end.value.code == 2
    assert "no case matches 'W99-*'" in capsys.readouterr().err
    assert contract.carriers == []


def test_json_goes_to_a_file_beside_the_table(
    contract: Contract, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdicts.json"
    file.write_text("of yesterday, and longer than what comes " * 1000)
    assert cli.main(["verify", "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["schema"] == 1
    assert set(document["machine"]) == {"kernel", "architecture", "cpus", "python", "mlockwipe"}
    assert list(document["carriers"]) == ["none", "supervisor"]
    assert document["carriers"]["none"][0] == {
        "case": "W1-whole",
        "row": "W1",
        "verdict": "leaked",
        "expected": "wiped",
        "pages": 16,
        "dirty": 0,
    }
    assert "W1" in capsys.readouterr().out


def test_json_to_stdout_stands_alone(contract: Contract, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1


def test_a_report_that_cannot_be_written_is_said_before_a_case_runs(
    contract: Contract, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", "--json", str(tmp_path / "no" / "where.json")]) == 125
    err = capsys.readouterr().err
    assert err.startswith("mlockwipe: the report ")
    assert "No such file or directory" in err
    assert contract.carriers == []


def test_a_report_that_cannot_be_written_in_the_end_is_a_sentence() -> None:
    with pytest.raises(Refused, match="No space left on device"):
        ReportFile("/dev/full").write("{}")


def test_the_supervisor_is_the_same_command_that_a_user_types() -> None:
    command = CARRIERS["supervisor"].command(["cat", "-n"])
    assert command[1:] == ["-P", "-m", "mlockwipe", "run", "--quiet", "--", "cat", "-n"]
    assert CARRIERS["none"].command(["cat", "-n"]) == ["cat", "-n"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("delay", [0.5, 0.7, 0.9])
def test_a_signal_ends_it_and_leaves_nothing_running(number: signal.Signals, delay: float) -> None:
    """These cases would take two seconds, and most of their programs don't end by themselves."""
    with marked() as processes:
        verify = subprocess.Popen(
            [MLOCKWIPE, "verify", "--carrier", "supervisor", "--case", "W7-*"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=processes.environment,
        )
        time.sleep(delay)
        verify.send_signal(number)
        assert verify.wait(TIMEOUT) in (128 + number, -number)  # the latter before it has come to the cases

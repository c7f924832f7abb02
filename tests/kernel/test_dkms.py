# SPDX-License-Identifier: MIT
"""Unloading: what is waited for, and what is told, by the words of rmmod."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlockwipe.errors import Refused
from mlockwipe.kernel import dkms
from mlockwipe.kernel.dkms import System, unload

WAITS = (
    "rmmod: ERROR: Module init_mlocked_on_free is in use",
    "rmmod: ERROR: could not remove module init_mlocked_on_free: Resource temporarily unavailable",
)


@dataclass(frozen=True)
class Scripted(System):
    """rmmod complains of these, one after the other, and of the last for ever; of nothing when none is left."""

    complaints: list[str] = field(default_factory=list)
    for_ever: bool = False

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        assert argv[0] == "rmmod"
        if not self.complaints:
            return subprocess.CompletedProcess(argv, 0, "", "")
        said = self.complaints[0] if self.for_ever else self.complaints.pop(0)
        return subprocess.CompletedProcess(argv, 1, "", f"{said}\n")


def test_pages_that_wait_for_a_moment_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkms, "PATIENCE", 300.0)
    system = Scripted(tmp_path, complaints=list(WAITS))
    unload(system)
    assert system.complaints == []


@pytest.mark.parametrize("said", WAITS)
def test_pages_that_wait_for_ever_are_not(tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkms, "PATIENCE", 0.2)
    with pytest.raises(Refused, match="stays loaded: pages that it has still to wipe are referred to by others"):
        unload(Scripted(tmp_path, complaints=[said], for_ever=True))


def test_another_reason_is_told_at_once_and_as_it_is(tmp_path: Path) -> None:
    system = Scripted(tmp_path, complaints=["rmmod: ERROR: could not remove module: Operation not permitted", "more"])
    with pytest.raises(Refused, match=r"^the module is off, but stays loaded: rmmod: .*Operation not permitted$"):
        unload(system)
    assert system.complaints == ["more"]

# SPDX-License-Identifier: MIT
"""Key managers on this machine, without a virtual one: each is caught while it holds its secret."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mlockwipe_lab.key_managers.material import WINDOW, number
from mlockwipe_lab.key_managers.registry import KEY_MANAGERS
from tests.conftest import need
from tests.support.running import MLOCKWIPE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to see the frames of pages")

TRIES = 300  # some moments are a few milliseconds of an operation
# what stands in memory that is locked, or was by the process that forked its holder
LOCK = {
    "gpg-sign-rsa4096": "inherited",
    "gpg-decrypt-rsa4096": "inherited",
    "gpg-decrypt-stream": "locked",
    "pinentry": "locked",
    "gnome-keyring": "locked",
    "minisign": "locked",
    "python-service": "locked",
    "libsodium": "locked",
    "openssl-secure-heap": "locked",
    "chronyd": "locked",
    "openvpn": "locked",
}
# what does so only where the heap happens to put it on the same page as something that is locked
BY_CHANCE = {"cryptsetup-add-key"}
NOT_LOCKED = {"keepassxc-cli", "ssh-agent", "softhsm2"}
# those whose packages the rest of the tests need anyway
TESTED = ["gpg-sign-rsa4096", "gpg-decrypt-rsa4096", "python-service", "libsodium", "ssh-agent"]


def test_every_key_manager_is_named_once_and_judged_here() -> None:
    names = [manager.name for manager in KEY_MANAGERS]
    assert sorted(names) == sorted({*LOCK, *BY_CHANCE, *NOT_LOCKED})


@pytest.mark.parametrize("name", TESTED)
def test_the_moment_is_found(name: str) -> None:
    result = _run(name)
    assert result["moment"] == "found"
    kinds = _kinds(result)
    if name in LOCK:
        assert LOCK[name] in kinds
    elif name in NOT_LOCKED:
        assert kinds == {"unlocked"}


@pytest.mark.parametrize("name", ["gpg-sign-rsa4096", "libsodium"])
def test_the_moment_is_found_under_supervision(name: str) -> None:
    result = _run(name, [MLOCKWIPE, "run", "-q", "--"])
    assert result["moment"] == "found"
    assert LOCK[name] in _kinds(result)


def test_a_number_is_looked_for_in_words_and_in_bytes() -> None:
    value = int.from_bytes(os.urandom(256), "big") | 1 << 2047
    words, in_bytes = number("p", value)
    assert words.data in value.to_bytes(256, "little")
    assert in_bytes.data in value.to_bytes(256, "big")
    assert len(words.data) == len(in_bytes.data) == WINDOW


def test_a_key_manager_that_is_not_known_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlockwipe_lab.key_managers", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 125
    assert "there is no key manager nothing" in done.stderr


def _run(name: str, prefix: Sequence[str] = ()) -> dict[str, Any]:
    (manager,) = (manager for manager in KEY_MANAGERS if manager.name == name)
    # A process of its own: it adopts orphans, and ends them.
    done = subprocess.run(
        [sys.executable, "-m", "mlockwipe_lab.key_managers", name, "--tries", str(TRIES), "--", *prefix],
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode == 125:
        assert "is not installed" in done.stderr, done.stderr
        need(name, " ".join(manager.needs.values()), is_there=False)
    assert done.returncode in (0, 1), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _kinds(result: dict[str, Any]) -> set[str]:
    return {hit["page"] for hit in result["before"]}

# SPDX-License-Identifier: MIT
"""libsodium's sodium_malloc: locked, between guard pages, PROT_NONE while it is not used."""

import signal

import pytest

from mlockwipe.contract.witness import Pages
from tests.support.witnessed import run_before_witness

pytestmark = pytest.mark.needs_library("libsodium.so.23", "libsodium23")


@pytest.mark.parametrize(("way", "status"), [("freed", 0), ("exits", 7), ("killed", -signal.SIGKILL)])
def test_a_key_is_wiped(way: str, status: int) -> None:
    outcome, pages = run_before_witness("sodium.py", way, supervised=True)
    assert (outcome.status, outcome.out) == (status, "636f6c6d0fe7c75e\n"), outcome.err
    assert pages == Pages(zero=1)
    assert outcome.report["unprotected"] == []


@pytest.mark.parametrize(("way", "status"), [("exits", 7), ("killed", -signal.SIGKILL)])
def test_a_key_is_left_bare(way: str, status: int) -> None:
    outcome, pages = run_before_witness("sodium.py", way, supervised=False)
    assert (outcome.status, outcome.out) == (status, "636f6c6d0fe7c75e\n"), outcome.err
    assert pages == Pages(whole=1)

# SPDX-License-Identifier: MIT
"""A missing program is skipped by name for a user, and a failure in CI."""

import pytest

from tests.conftest import _loads, need


def test_a_missing_program_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^gpg is not installed: apt-get install gnupg$"):
        need("gpg", "gnupg", is_there=False)


def test_a_missing_program_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"^gpg is not installed: apt-get install gnupg$"):
        need("gpg", "gnupg", is_there=False)


def test_a_library_is_looked_for_by_loading_it() -> None:
    assert _loads("libc.so.6")
    assert not _loads("libof-nobody.so.1")


@pytest.mark.needs_program("sh", "dash")
@pytest.mark.needs_library("libc.so.6", "libc6")
def test_what_is_there_is_used(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("needs_program") is not None

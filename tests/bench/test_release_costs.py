# SPDX-License-Identifier: MIT
"""The release of memory by size: what is locked is wiped and nothing else, and figures are named by size."""

from pathlib import Path

import pytest

from mlockwipe_lab.bench.host import limits, release_costs
from mlockwipe_lab.bench.host.runner import Runner
from mlockwipe_lab.bench.sizes import size_name
from tests.support.c_programs import needs_gcc
from tests.support.running import Outcome, run_bare, run_supervised

PAGES = 16  # of 64 KiB


def names(outcome: Outcome) -> list[str]:
    assert (outcome.status, outcome.err) == (0, "")
    return [line.split()[0] for line in outcome.out.splitlines()]


@needs_gcc
@pytest.mark.parametrize("kind", ["rw", "read", "huge"])
@pytest.mark.parametrize(("lock", "wiped"), [("locked", PAGES), ("unlocked", 1)])
def test_each_process_has_so_much_of_its_memory_locked(kind: str, lock: str, wiped: int, programs: Path) -> None:
    command = str(programs / "release"), kind, lock, "64", "3"
    assert names(run_bare(command)) == ["release", "memset"] * 3
    supervised = run_supervised(command)
    assert names(supervised) == ["release", "memset"] * 3
    assert supervised.pages_wiped == 3 * wiped


def test_sizes_have_names() -> None:
    names = [size_name(size) for size in release_costs.SIZES]
    assert names == ["4 KiB", "64 KiB", "1 MiB", "16 MiB", "256 MiB", "1 GiB"]
    assert release_costs.size_id(256 << 10) == "256mib"


@pytest.mark.parametrize("state", ["always madvise [never]\n", None])
def test_huge_pages_are_skipped_where_there_are_none(
    state: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "enabled"
    if state:
        switch.write_text(state)
    monkeypatch.setattr(limits, "HUGE_PAGES", switch)
    with pytest.raises(limits.Skipped, match="transparent huge pages are off"):
        release_costs.of_size_huge(Runner.__new__(Runner), 2048)  # which never gets to run anything
    switch.write_text("always [madvise] never\n")
    limits.need_huge_pages()

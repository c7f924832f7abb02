# SPDX-License-Identifier: MIT
"""brk(2) that shrinks the heap: what it releases is wiped, and nothing else."""

import pytest

from mlockwipe.contract.witness import witness
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import run_bare, run_supervised

pytestmark = needs_gcc


@pytest.mark.parametrize("kind", ["merged", "shrunk", "set", "below", "regrown"])
def test_neighbours_of_the_heap_keep_every_byte(kind: str) -> None:
    for run, dirty in ((run_bare, 1), (run_supervised, 0)):
        with witness() as seen:
            outcome = run([compiled("breaks"), kind, str(seen.write_end)], pass_fds=(seen.write_end,))
            seen.look()
            if outcome.out == "refused\n":
                pytest.skip("PR_SET_MM needs CAP_SYS_RESOURCE")
            shown = 0 if kind == "below" else 1
            assert (outcome.result, outcome.err) == ((0, "lost 0\n"), "")
            assert seen.counts == (shown, shown * dirty)

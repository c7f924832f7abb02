# SPDX-License-Identifier: MIT
"""Calls with arguments that nobody means: the program gets from them what it gets without a supervisor."""

import os
import random

import pytest

from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import run_bare, run_supervised

pytestmark = needs_gcc

RUNS = 6
CALLS = 400


@pytest.mark.parametrize("abi", ["native", "i386"])
@pytest.mark.parametrize("options", [(), ("--strict",)], ids=["", "strict"])
def test_what_comes_of_them_is_as_ever(abi: str, options: tuple[str, ...]) -> None:
    for _ in range(RUNS):
        seed = os.environ.get("MLOCKWIPE_SEED") or str(random.getrandbits(32))
        command = [compiled("weird"), seed, str(CALLS), abi]
        bare = run_bare(command)
        if abi == "i386" and bare.status == -11:
            pytest.skip("this kernel has no calls of i386")
        outcome = run_supervised(command, arguments=options)
        assert bare.status == 5, seed
        assert outcome.result == bare.result, f"MLOCKWIPE_SEED={seed}"
        assert outcome.err == "", f"MLOCKWIPE_SEED={seed}"
        assert outcome.pages_wiped, f"MLOCKWIPE_SEED={seed}"

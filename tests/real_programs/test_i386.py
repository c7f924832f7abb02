# SPDX-License-Identifier: MIT
"""Programs that lock memory by the i386 system calls: 32-bit ones, and 64-bit ones that execute int $0x80."""

import signal
import subprocess

import pytest

from mlockwipe.contract.witness import Pages, witness
from tests.support.c_programs import compiled, needs_gcc
from tests.support.running import MLOCKWIPE, marked, run_bare, run_supervised

pytestmark = needs_gcc

ABIS = {"32-bit": ("-m32",), "int80": ("-DINT80",), "64-bit": ()}
each_abi = pytest.mark.parametrize(
    "abi", [pytest.param("32-bit", marks=pytest.mark.needs_gcc("gcc-multilib", "-m32")), "int80", "64-bit"]
)
WAYS = {"exits": 3, "mlock2": 3, "mlockall": 3, "killed": -signal.SIGKILL}


@each_abi
@pytest.mark.parametrize("way", WAYS)
def test_locked_pages_are_wiped_and_were_left_bare(abi: str, way: str) -> None:
    program = compiled("locks", *ABIS[abi])
    with witness() as seen:
        bare = run_bare([program, way, str(seen.write_end)], pass_fds=(seen.write_end,))
        seen.look()
        assert seen.pages == Pages(whole=16), bare.err
    with witness() as seen:
        supervised = run_supervised([program, way, str(seen.write_end)], pass_fds=(seen.write_end,))
        seen.look()
        assert seen.pages == Pages(zero=16), supervised.err
    assert supervised.result == bare.result == (WAYS[way], "")
    assert supervised.report["unprotected"] == []


@each_abi
@pytest.mark.parametrize("supervised", [True, False])
def test_munmap_wipes_while_the_program_lives_on(abi: str, supervised: bool) -> None:
    prefix = [MLOCKWIPE, "run", "--"] if supervised else []
    with witness() as seen, marked() as processes:
        program = subprocess.Popen(
            [*prefix, compiled("locks", *ABIS[abi]), "munmap", str(seen.write_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=processes.environment,
            pass_fds=(seen.write_end,),
        )
        assert program.stdout is not None
        assert program.stdout.readline() == b"unmapped\n"
        seen.look()
        program.communicate(timeout=120)
        assert program.returncode == 3
        assert seen.pages == (Pages(zero=16) if supervised else Pages(whole=16))

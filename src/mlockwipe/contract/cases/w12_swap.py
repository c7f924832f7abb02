# SPDX-License-Identifier: MIT
"""W12: inherited copies, which are not locked, in swap. Each comes back as another page than the one that went."""

import ctypes
import os

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import read
from mlockwipe.contract.memory_cgroup import memory_cgroup
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import PAGES, PRIVATE, READ_WRITE, SIZE, Program, Signal
from mlockwipe.contract.task_states import swapped
from mlockwipe.linux import mm, mman

HALF = PAGES // 2
LIMIT = 16 << 20  # bytes, of which a group may have so many in memory
PRESSURE = 2 * LIMIT  # bytes, that the neighbour uses again and again
ROUNDS = 20  # at most

_MOVED = "what was swapped out is no page any more, and comes back as another"


@case(
    "W12",
    "child-swapped",
    WIPED,
    "the child's copy, which is not locked, is swapped out before the child exits",
    needs_ram_scan=_MOVED,
)
def child_swapped(program: Program) -> None:
    at = program.secret()

    def body() -> None:
        paint(at, PAGES)
        mm.madvise(at, SIZE, mman.MADV_PAGEOUT)

    os.waitpid(program.fork(body), 0)
    program.look()
    _clear(at)


def _swapped_by_neighbour(program: Program, back: int) -> None:
    """A child's copy is swapped out for what another process allocates; so many pages are back when it exits."""
    if _free_swap() < 2 * PRESSURE:
        program.cannot(f"it needs {2 * PRESSURE >> 20} MiB of free swap")
    at = program.secret()
    written, pressed = Signal(), Signal()

    with memory_cgroup(LIMIT, swap=True) as join:
        if join is None:
            program.cannot("it needs a memory cgroup of its own to be short of memory in")

        def child() -> None:
            join()
            paint(at, PAGES)
            written.give()
            pressed.wait()
            program.intact("what came back from swap", at, back)

        def neighbour() -> None:
            join()
            room = mm.mmap(0, PRESSURE, READ_WRITE, PRIVATE)
            for _ in range(ROUNDS):
                ctypes.memset(room, 1, PRESSURE)
                if swapped(pid, at, PAGES) == PAGES:
                    break
            program.check("pages of the child in swap", swapped(pid, at, PAGES), PAGES)
            # Of what was written out nothing may stay in free memory: the kernel has let go of it, and not the child.
            ctypes.memset(room, 1, PRESSURE)

        pid = program.fork(child)
        written.wait()
        os.waitpid(program.fork(neighbour), 0)
        pressed.give()
        os.waitpid(pid, 0)
        program.look()
    program.intact("the parent's own pages", at)
    _clear(at)


@case(
    "W12",
    "child-back-from-swap",
    WIPED,
    "the child's copy was swapped out for another's allocations; all of it is back when the child exits",
    needs_ram_scan=_MOVED,
)
def child_back_from_swap(program: Program) -> None:
    _swapped_by_neighbour(program, PAGES)


@case(
    "W12",
    "child-half-back-from-swap",
    WIPED,
    "the child's copy was swapped out for another's allocations; half of it is back when the child exits",
    needs_ram_scan=_MOVED,
)
def child_half_back_from_swap(program: Program) -> None:
    _swapped_by_neighbour(program, HALF)


def _clear(at: int) -> None:
    """Clear the parent's own pages, or those would be what is found without a carrier."""
    ctypes.memset(at, 0, SIZE)


def _free_swap() -> int:
    """In bytes."""
    return next(
        int(line.split()[1]) << 10 for line in read("/proc/meminfo").splitlines() if line.startswith("SwapFree")
    )

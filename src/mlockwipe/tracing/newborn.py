# SPDX-License-Identifier: MIT
"""Tasks that a traced program has just made: whether they share its memory, and whether they are its own at all."""

import contextlib
from collections.abc import Callable, Iterable

from mlockwipe.linux import kcmp, procfs, ptrace
from mlockwipe.linux.mman import CLONE_VFORK, CLONE_VM, CSIGNAL
from mlockwipe.linux.wait import EVENT_VFORK
from mlockwipe.memory.address_space import AddressSpace, Family
from mlockwipe.memory.calls import read_memory
from mlockwipe.memory.inject import MASK
from mlockwipe.memory.ranges import RangeSet
from mlockwipe.tracing.task import Task

_FLAGS = CLONE_VM | CSIGNAL | CLONE_VFORK


def share_memory(child: int, maker: Task, event: int) -> bool:
    """Whether a new task uses its maker's memory. `event`: the one that the maker is stopped at.

    The kernel tells an ordinary user nothing of an undumpable process, gpg-agent say, and then the call that made the
    task is asked. Taken for a fork, the exec of a vfork child would have its parent's memory wiped.
    """
    held = maker.space.held
    with contextlib.suppress(OSError):
        return kcmp.same_address_space(child, held.keeper.pid if held else maker.tid)
    try:
        registers = ptrace.get_registers(maker.tid)
    except ProcessLookupError:  # killed in the stop
        return event == EVENT_VFORK
    numbers = registers.abi.numbers
    if registers.number in (numbers["fork"], numbers["vfork"]):
        return registers.number == numbers["vfork"]
    argument = registers.argument(0)
    if registers.number == numbers["clone"]:
        return bool(argument & CLONE_VM)
    flags = read_memory(maker.space.state.memory_fd, argument, 8)  # struct clone_args begins with 64 bits of flags
    return bool(int.from_bytes(flags, "little") & CLONE_VM) if flags else event == EVENT_VFORK


def orphan(
    child: int,
    living: Iterable[AddressSpace],
    ended: Iterable[tuple[int, Family]],
    sensitive: Callable[[AddressSpace, int], RangeSet],
) -> AddressSpace:
    """The memory of a forked child of which no maker is known. `ended`: families of late, by stack.

    The stack of a forked child lies where its parent's did, at a place drawn at random at exec: that tells the
    family, and everything that was sensitive in it counts.
    """
    stack_top = procfs.stack_top(child)
    spaces = [space for space in living if space.stack_top == stack_top]
    families = {space.family for space in spaces}
    families.update(family for top, family in ended if top == stack_top)
    ranges = RangeSet()
    for source in (*(sensitive(space, child) for space in spaces), *(family.legacy for family in families)):
        for start, end in source:
            ranges.add(start, end)
    space = AddressSpace(next(iter(families), None))
    space.sensitive.inherit(ranges)
    space.stack_top = stack_top
    return space


def is_helper(tid: int) -> bool:
    """Whether a newborn was cloned for a keeper: a program may block just those signals, but makes no child that goes
    on upon its own stack and sends no signal at its end.

    That is asked of the call, which the newborn has in its registers, too: once its maker is dead, the kernel has an
    orphan send SIGCHLD (reparent_leader in kernel/exit.c).
    """
    if ptrace.get_signal_mask(tid) != MASK:
        return False
    registers = ptrace.get_registers(tid)
    flags, stack = registers.argument(0), registers.argument(1)
    return registers.number == registers.abi.numbers["clone"] and flags & _FLAGS == CLONE_VM and stack == 0

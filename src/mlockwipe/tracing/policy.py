# SPDX-License-Identifier: MIT
"""What `run` and `attach` decide differently of what is traced."""

from mlockwipe.linux.wait import Stop, UntracedStop
from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.ranges import RangeSet
from mlockwipe.tracing.task import FilterTwo, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object  # typing takes 4 ms to import


class Policy(Protocol):
    """What `run` and `attach` decide differently. A stopped task goes on when a method returns, but for `on_stop`."""

    birth_filter: FilterTwo  # of a task whose maker nobody knows

    def on_stop(self, task: Task, stop: Stop) -> None:
        """A stop that is no birth and no exec. The policy lets the task go on."""

    def on_untraced_stop(self, stop: UntracedStop) -> None:
        """A child that is not traced was stopped."""

    def sensitive(self, space: AddressSpace, tid: int) -> RangeSet:
        """What is to be wiped if the memory is released now. `tid`: a task that may be asked without a keeper."""

    def forked(self, parent: AddressSpace, child: AddressSpace, tgid: int) -> None:
        """A child has an address space of its own."""

    def unknown(self, child: int) -> None:
        """A child is traced of which the kernel tells nothing: it may not be left as it is."""

    def welcome(self, task: Task, parent: AddressSpace | None) -> None:
        """A task that was just born, in its first stop. `parent`: whose copy its address space is, or shared."""

    def executes(self, task: Task) -> None:
        """A process has begun a new program."""

    def not_protected(self, tgid: int, reason: str) -> None:
        """Something of a process can't be protected; it goes on."""

    def partly_protected(self, tgid: int, reason: str) -> None:
        """Something of a process can't be protected, the rest is."""

    def released(self, space: AddressSpace, keeper: int | None, tgid: int, cause: str, pages: int) -> None:
        """An address space was given back. `keeper`: the pid that its keeper had."""

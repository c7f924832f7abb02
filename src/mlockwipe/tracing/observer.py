# SPDX-License-Identifier: MIT
"""What may be seen of the traced programs besides: an auditor is handed in, and hears of every change."""

from mlockwipe.memory.address_space import AddressSpace
from mlockwipe.memory.calls import Call
from mlockwipe.memory.ranges import Range
from mlockwipe.memory.sensitive import Change
from mlockwipe.tracing.task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object  # typing takes 4 ms to import


class Observer(Protocol):
    """All methods return at once and raise nothing: the program waits meanwhile."""

    watches_locks: bool  # whether each lock has to be seen with its result

    def not_protected(self, program: str) -> None:
        """A process of this program has locked memory and can't be looked at."""

    def entered(self, task: Task, call: Call, given_up: list[Range]) -> None:
        """A call is about to be made, and nothing is wiped for it yet. `given_up`: what it unlocks or releases if it
        succeeds, sensitive or not."""

    def returned(self, task: Task, call: Call, result: int, entry: Change, change: Change) -> None:
        """The call has returned, its task is stopped. `entry` and `change`: what it did to the sensitive ranges, at
        its entry and at its return."""

    def forked(self, parent: AddressSpace, child: AddressSpace, process: int) -> None:
        """A child has got copies of all that its parent had locked."""

    def gone(self, process: int) -> None:
        """A process has ended, or executes another program."""

    def ended(self, space: AddressSpace, cause: str) -> None:
        """No task uses an address space any more, and it is not wiped yet."""


class Unobserved:
    """The observer of a program that nobody audits."""

    watches_locks = False

    def not_protected(self, program: str) -> None:
        pass

    def entered(self, task: Task, call: Call, given_up: list[Range]) -> None:
        pass

    def returned(self, task: Task, call: Call, result: int, entry: Change, change: Change) -> None:
        pass

    def forked(self, parent: AddressSpace, child: AddressSpace, process: int) -> None:
        pass

    def gone(self, process: int) -> None:
        pass

    def ended(self, space: AddressSpace, cause: str) -> None:
        pass

# SPDX-License-Identifier: MIT
"""A carrier: a way to have locked memory wiped, as facts.

Nothing here boots a machine or loads a module: who can do that reads what is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

# Debian's kernel zeroes what it hands out, which wears down what a case left behind before it is found.
STOCK = ("init_on_alloc=0", "init_on_free=0")


@dataclass(frozen=True)
class Carrier:
    """`prefix`: what a command runs under. `append`: words for the kernel's command line. `module`: parameters of the
    module init_mlocked_on_free, None where it is not needed. `limits`: the cases, as shell patterns of their names,
    that it is known not to fulfil, each with the reason that users read. `late`: it zeroes a page only when nobody
    else refers to it, which the LRU batch of another CPU puts off for a moment; so what is gone a moment after the
    release is no leak.
    """

    name: str
    prefix: tuple[str, ...] = ()
    append: tuple[str, ...] = STOCK
    module: tuple[str, ...] | None = None
    limits: Mapping[str, str] = field(default_factory=dict)
    late: bool = False

    @property
    def boot_option(self) -> bool:
        """Whether it needs a kernel with init_mlocked_on_free."""
        return any(word.startswith("init_mlocked_on_free=") for word in self.append)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` under it."""
        return [*self.prefix, *argv]

    def limit(self, case: str) -> str | None:
        """Why it is known not to fulfil the case of that name; None when it has to."""
        return next((reason for pattern, reason in self.limits.items() if fnmatchcase(case, pattern)), None)

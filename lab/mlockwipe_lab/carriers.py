# SPDX-License-Identifier: MIT
"""The carriers as the lab knows them: a kernel to boot, words on its command line, a way to run a command."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mlockwipe.contract import BARE, all_cases
from mlockwipe.errors import Refused
from mlockwipe.supervisor.limits import LIMITS

# Debian's kernel zeroes what it hands out, which wears down what a case left behind before it is found.
_STOCK = ("init_on_alloc=0", "init_on_free=0")

_ZEROES_ALL = "it zeroes everything that is freed, what the program had unlocked included"
_HUGE_LATE = "a huge page is freed, and so zeroed, as a whole: a part that was unmapped lives on with the rest"
_IN_SWAP_CACHE = "what is in the swap cache when its last user goes is freed, and so zeroed, when memory is short"
_REPLACED = "its old pages are freed, and so zeroed, a moment later"

# What only a search of all memory can see: copies that the kernel makes and gives back on its own. Pages that come
# back from swap come with others around them, which the kernel may take again before anybody has mapped them.
_RECLAIMED = dict.fromkeys(
    ("W12-child-swapped", "W12-child-half-back-from-swap", "W12-child-back-from-swap"),
    "the kernel has given the page back before, when it swapped its contents out",
)
_REFUSED = {
    "W12-child-copy-refused": "Linux 6.1 copies a page before it asks whether there is room, and frees the copy"
}
_KERNELS_COPIES = {
    **_RECLAIMED,
    **_REFUSED,
    "W13-collapse": "the kernel gives the small pages back when it has copied them into a huge one",
    "W13-copied-after-fork": "the kernel gives the huge page back when it has copied all of it to small ones",
}


@dataclass(frozen=True)
class LabCarrier:
    """`append`: words for the kernel's command line. `prefix`: what a command runs under in the guest.
    `module`: parameters of the module init_mlocked_on_free, which is loaded into the guest; None for a guest without
    it. `limits`: the cases that it is known not to fulfil, each with the reason.
    `boot_option`: it needs a kernel with init_mlocked_on_free.
    `late`: it zeroes a page only when nobody else refers to it, which the LRU batch of another CPU puts off for a
    moment; so what is gone a moment after the release is no leak.
    """

    name: str
    append: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    module: tuple[str, ...] | None = None
    limits: Mapping[str, str] = field(default_factory=dict)
    late: bool = False

    @property
    def boot_option(self) -> bool:
        return any(word.startswith("init_mlocked_on_free=") for word in self.append)


def _matching(*limits: tuple[str, str]) -> dict[str, str]:
    return {
        case.name: reason for case in all_cases() for pattern, reason in limits if fnmatchcase(case.name, pattern)
    }


_INIT_ON_FREE = _matching(
    ("L1-*", _ZEROES_ALL),
    ("W13-unmap-*", _HUGE_LATE),
    ("W13-mthp-unmap-*", _HUGE_LATE),
    ("W13-dontneed-part", _HUGE_LATE),
    ("W13-moved", _HUGE_LATE),
    ("W13-collapse", _REPLACED),
    ("W12-child-*swap*", _IN_SWAP_CACHE),
)


def _carriers() -> list[LabCarrier]:
    # -P: a directory named mlockwipe where the user happens to stand is not ours
    run = (sys.executable, "-P", "-m", "mlockwipe", "run", "--quiet", "--")
    return [
        LabCarrier(BARE, _STOCK),
        LabCarrier("init_on_free", ("init_on_alloc=0", "init_on_free=1"), limits=_INIT_ON_FREE, late=True),
        LabCarrier("supervisor", _STOCK, run, limits={**LIMITS, **_KERNELS_COPIES}),
        LabCarrier("boot-option", (*_STOCK, "init_mlocked_on_free=1"), limits=_RECLAIMED, late=True),
        LabCarrier("module", _STOCK, module=("enabled=1",), limits={**_RECLAIMED, **_REFUSED}, late=True),
    ]


CARRIERS = {carrier.name: carrier for carrier in _carriers()}


def lab_carrier(name: str) -> LabCarrier:
    """Raises Refused when there is none of that name."""
    if name not in CARRIERS:
        raise Refused(f"there is no carrier {name}: it is one of {', '.join(CARRIERS)}")
    return CARRIERS[name]

# SPDX-License-Identifier: MIT
"""The kernel's own answer, on any kernel since 5.3: everything that is freed is zeroed. Here to be compared with."""

from mlockwipe.carriers.carrier import Carrier

_HUGE_LATE = "a huge page is freed, and so zeroed, as a whole: a part that was unmapped lives on with the rest"
_IN_SWAP_CACHE = "what is in the swap cache when its last user goes is freed, and so zeroed, when memory is short"

_LIMITS = {
    "L1-*": "it zeroes everything that is freed, what the program had unlocked included",
    "W12-child-*swap*": _IN_SWAP_CACHE,
    "W13-unmap-*": _HUGE_LATE,
    "W13-mthp-unmap-*": _HUGE_LATE,
    "W13-dontneed-part": _HUGE_LATE,
    "W13-moved": _HUGE_LATE,
    "W13-collapse": "its old pages are freed, and so zeroed, a moment later",
}

INIT_ON_FREE = Carrier("init_on_free", append=("init_on_alloc=0", "init_on_free=1"), limits=_LIMITS, late=True)

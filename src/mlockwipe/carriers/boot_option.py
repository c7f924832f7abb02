# SPDX-License-Identifier: MIT
"""The boot option init_mlocked_on_free, on a kernel with the patches of a series. Its limits: docs/kernel.md."""

from mlockwipe.carriers.carrier import STOCK, Carrier

# Copies that the kernel makes and gives back on its own. Pages that come back from swap come with others around them,
# which the kernel may take again before anybody has mapped them.
_LIMITS = {
    **dict.fromkeys(
        ("W12-child-swapped", "W12-child-half-back-from-swap", "W12-child-back-from-swap"),
        "the kernel has given the page back before, when it swapped its contents out",
    ),
    "W12-child-moves-by-userfaultfd": "UFFDIO_MOVE takes inherited copies to memory that is not marked",
}

BOOT_OPTION = Carrier("boot-option", append=(*STOCK, "init_mlocked_on_free=1"), limits=_LIMITS, late=True)

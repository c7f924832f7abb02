# SPDX-License-Identifier: MIT
"""The module init_mlocked_on_free, built from the headers of Debian's kernels. Its limits: docs/module.md."""

from mlockwipe.carriers.boot_option import BOOT_OPTION
from mlockwipe.carriers.carrier import Carrier

_LIMITS = {
    **BOOT_OPTION.limits,
    "W12-child-copy-refused": "Linux 6.1 copies a page before it asks whether there is room, and frees the copy",
}

MODULE = Carrier("module", module=("enabled=1",), limits=_LIMITS, late=True)

# SPDX-License-Identifier: MIT
"""No carrier at all: the negative control. Nothing is wiped on any kernel, which is why it has no limits."""

from mlockwipe.carriers.carrier import Carrier

NONE = Carrier("none")

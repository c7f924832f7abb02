# SPDX-License-Identifier: MIT
"""The carriers, one file each: how a command runs under one, what it needs, and its limits with their reasons."""

from mlockwipe.carriers.boot_option import BOOT_OPTION
from mlockwipe.carriers.init_on_free import INIT_ON_FREE
from mlockwipe.carriers.module import MODULE
from mlockwipe.carriers.none import NONE
from mlockwipe.carriers.supervisor import SUPERVISOR

CARRIERS = {carrier.name: carrier for carrier in (NONE, INIT_ON_FREE, SUPERVISOR, BOOT_OPTION, MODULE)}

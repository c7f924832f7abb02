# SPDX-License-Identifier: MIT
"""What this machine's architecture decides: page size, registers, system call numbers, calling conventions.

One file an architecture, all with the same names. A further one also needs requirements.ARCHITECTURES, and the
contract's cases their machine code.
"""

from mlockwipe.linux.arch.x86_64 import ABIS, PAGE_SIZE, RED_ZONE, TASK_SIZE, Abi, Registers
from mlockwipe.linux.arch.x86_64 import X86_64 as NATIVE

__all__ = ["ABIS", "NATIVE", "PAGE_SIZE", "RED_ZONE", "TASK_SIZE", "Abi", "Registers"]

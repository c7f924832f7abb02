# SPDX-License-Identifier: MIT
"""kcmp(2): whether two processes share a kernel resource."""

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import fail, syscall

_SYS_KCMP = NATIVE.numbers["kcmp"]
_KCMP_VM = 1


def same_address_space(first: int, second: int) -> bool:
    """Whether two tasks share their memory.

    'No' for a task that is exiting. ProcessLookupError when one is gone, PermissionError when ptrace access to one
    is refused, OSError(ENOSYS) on a kernel without CONFIG_KCMP.
    """
    result: int = syscall(_SYS_KCMP, first, second, _KCMP_VM, 0, 0, 0)
    if result < 0:
        fail(f"kcmp({first}, {second}, KCMP_VM)")
    return result == 0

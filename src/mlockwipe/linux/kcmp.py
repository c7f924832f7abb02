# SPDX-License-Identifier: MIT
"""kcmp(2): whether two processes share a kernel resource."""

import ctypes
import errno

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import fail, syscall
from mlockwipe.linux.read_file import in_proc

_SYS_KCMP = NATIVE.numbers["kcmp"]
_KCMP_VM = 1
_LAST_BIT = 1 << 8  # of coredump_filter: shared pages of DAX


def same_address_space(first: int, second: int) -> bool:
    """Whether two tasks share their memory.

    'No' for a task that is exiting. ProcessLookupError when one is gone, PermissionError when ptrace access to one
    is refused, OSError where nothing tells.
    """
    result: int = syscall(_SYS_KCMP, first, second, _KCMP_VM, 0, 0, 0)
    if result < 0:
        error = ctypes.get_errno()
        try:
            if error in (errno.ENOSYS, errno.EPERM):
                return same_by_core_filter(first, second)
        except OSError:
            pass  # what kcmp said is more to the point
        fail(f"kcmp({first}, {second}, KCMP_VM)", error)
    return result == 0


def same_by_core_filter(first: int, second: int) -> bool:
    """The same without kcmp, which is an option of the kernel, and which Docker's seccomp profile refuses.

    What a core dump holds is set for an address space: it is changed for the one, and looked at in the other.
    """
    before = _core_filter(first)
    if _core_filter(second) != before:
        return False
    _set_core_filter(first, before ^ _LAST_BIT)
    try:
        return _core_filter(second) != before
    finally:
        _set_core_filter(first, before)


def _core_filter(pid: int) -> int:
    with open(f"{pid}/coredump_filter", encoding="ascii", opener=in_proc) as file:
        return int(file.read() or "0", 16)  # nothing without memory


def _set_core_filter(pid: int, value: int) -> None:
    with open(f"{pid}/coredump_filter", "w", encoding="ascii", opener=in_proc) as file:
        file.write(hex(value))

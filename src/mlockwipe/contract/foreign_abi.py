# SPDX-License-Identifier: MIT
"""System calls by the processor's other ABIs, which a 64-bit program may use at any time: i386 and x32."""

import ctypes
import errno
import os
import signal
from collections.abc import Callable

from mlockwipe.contract.machine_code import int_80
from mlockwipe.contract.program import Program
from mlockwipe.linux import mman
from mlockwipe.linux.libc import fail, function

LOW = mman.MAP_32BIT

# arch/x86/entry/syscalls/syscall_32.tbl
EXECVE, GETPID, OLD_MMAP, MUNMAP, MLOCK, MUNLOCK, MLOCKALL = 11, 20, 90, 91, 150, 151, 152
MREMAP, MMAP2, EXIT_GROUP = 163, 192, 252

Call = Callable[..., int]


def i386(program: Program) -> Call:
    """System calls as a 32-bit program makes them, or the end of the case."""
    call = int_80()

    def probe() -> None:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os._exit(0 if call(GETPID, 0, 0, 0, 0, 0) == os.getpid() else 1)

    if os.waitpid(program.fork(probe), 0)[1] != 0:
        program.cannot("this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION, ia32_emulation=)")

    def checked(number: int, *arguments: int) -> int:
        result = call(number, *arguments, *[0] * (5 - len(arguments)))
        if -4096 < result < 0:
            fail(f"i386 system call {number}", -result)
        return result

    return checked


_syscall = function("syscall", ctypes.c_long, *([ctypes.c_long] * 7), sleeps=True)
_X32 = 0x40000000
X32_MUNMAP, X32_MLOCK = 11, 149


def call_x32(program: Program, number: int, *arguments: int) -> None:
    if _syscall(_X32 | number, *arguments, *[0] * (6 - len(arguments))) == -1:
        if ctypes.get_errno() == errno.ENOSYS:
            program.cannot("this kernel has no x32 (CONFIG_X86_X32_ABI)")
        fail(f"x32 system call {number}")

# SPDX-License-Identifier: MIT
"""The same calls by the processor's other ABIs, which a 64-bit program may use at any time: i386 and x32."""

import ctypes
import errno
import os
import signal
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, WIPED, case
from mlockwipe.contract.machine_code import int_80
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program, refused
from mlockwipe.linux import mm, mman
from mlockwipe.linux.libc import fail, function

HALF = PAGES // 2
LOW = mman.MAP_32BIT

# arch/x86/entry/syscalls/syscall_32.tbl
EXECVE, GETPID, OLD_MMAP, MUNMAP, MLOCK, MUNLOCK, MLOCKALL = 11, 20, 90, 91, 150, 151, 152
MREMAP, MMAP2, MADVISE, EXIT_GROUP, MLOCK2 = 163, 192, 219, 252, 376

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


@case("W1", "i386-unmap", WIPED, "an i386 call unmaps")
def i386_unmap(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    call(MUNMAP, at, SIZE)
    program.look()


@case("W1", "i386-lock", WIPED, "an i386 call locks")
def i386_lock(program: Program) -> None:
    call = i386(program)
    at = program.plain(flags=LOW)
    call(MLOCK, at, SIZE)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


def _map_over(program: Program, flags: int) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    call(MMAP2, at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED | flags, 0xFFFFFFFF)
    program.look()


@case("W2", "i386-fixed", WIPED, "an i386 call maps over it")
def i386_fixed(program: Program) -> None:
    _map_over(program, 0)


@case("W2", "i386-fixed-locked", WIPED, "an i386 call maps locked memory over it")
def i386_fixed_locked(program: Program) -> None:
    _map_over(program, mman.MAP_LOCKED)


@case("W2", "i386-old-mmap", WIPED, "the old i386 mmap, which takes its six arguments from memory")
def i386_old_mmap(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    block = mm.mmap(0, PAGE, READ_WRITE, PRIVATE | LOW)
    arguments = (ctypes.c_uint32 * 6)(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED, 0xFFFFFFFF, 0)
    ctypes.memmove(block, arguments, ctypes.sizeof(arguments))
    program.show(at)
    call(OLD_MMAP, block)
    program.look()


@case("W3", "i386-shrink", WIPED, "an i386 mremap shrinks it")
def i386_shrink(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at + HALF * PAGE, HALF)
    call(MREMAP, at, SIZE, HALF * PAGE, 0, 0)
    program.look()
    program.intact("the pages that stay", at, HALF)


@case("W6", "i386-exit", WIPED, "locked by an i386 call, and ended by one")
def i386_exit(program: Program) -> None:
    call = i386(program)

    def body() -> None:
        at = program.plain(flags=LOW)
        call(MLOCK, at, SIZE)
        program.show(at)
        call(EXIT_GROUP, 9)

    program.reap(program.fork(body), 9)


@case("W8", "i386-exec", WIPED, "an i386 execve replaces the program")
def i386_exec(program: Program) -> None:
    call = i386(program)
    program.show(program.secret())
    argv = [b"/bin/sh", b"-c", program.looker().encode()]
    strings = mm.mmap(0, 4 * PAGE, READ_WRITE, PRIVATE | LOW)
    vector = mm.mmap(0, PAGE, READ_WRITE, PRIVATE | LOW)
    pointers = (ctypes.c_uint32 * (len(argv) + 1)).from_address(vector)
    end = strings
    for index, argument in enumerate(argv):
        ctypes.memmove(end, argument + b"\0", len(argument) + 1)
        pointers[index] = end
        end += len(argument) + 1
    call(EXECVE, strings, vector, 0)


@case("W10", "i386-future", WIPED, "an i386 mlockall(MCL_FUTURE)")
def i386_future(program: Program) -> None:
    i386(program)(MLOCKALL, mman.MCL_FUTURE)
    at = program.plain()
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("L1", "i386-munlock", KEPT, "an i386 call unlocks")
def i386_munlock(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    call(MUNLOCK, at, SIZE)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("L5", "i386-unmap-unaligned", KEPT, "an i386 munmap from inside a page: EINVAL")
def i386_unmap_unaligned(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    program.check("munmap", refused(call, MUNMAP, at + 8, SIZE), "EINVAL")
    program.look()
    program.intact("the secret", at)


@case("L7", "i386-map-refused", KEPT, "an i386 mmap whose arguments are in memory that is not there: EFAULT")
def i386_map_refused(program: Program) -> None:
    call = i386(program)
    at = program.secret(flags=LOW)
    program.show(at)
    program.check("mmap", refused(call, OLD_MMAP, 1), "EFAULT")
    program.look()
    program.intact("the secret", at)


# x32


@case("W1", "x32", WIPED, "an x32 call locks, another unmaps")
def x32(program: Program) -> None:
    at = program.plain()
    _x32(program, X32_MLOCK, at, SIZE)
    program.show(at)
    _x32(program, X32_MUNMAP, at, SIZE)
    program.look()


_syscall = function("syscall", ctypes.c_long, *([ctypes.c_long] * 7), sleeps=True)
_X32 = 0x40000000
X32_MUNMAP, X32_MLOCK = 11, 149


def _x32(program: Program, number: int, *arguments: int) -> None:
    if _syscall(_X32 | number, *arguments, *[0] * (6 - len(arguments))) == -1:
        if ctypes.get_errno() == errno.ENOSYS:
            program.cannot("this kernel has no x32 (CONFIG_X86_X32_ABI)")
        fail(f"x32 system call {number}")

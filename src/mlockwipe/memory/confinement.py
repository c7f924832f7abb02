# SPDX-License-Identifier: MIT
"""What a helper task may still do: a seccomp filter that leaves it the few calls of its work, and no capability.

A helper lives in memory that the program writes to, and has the credentials that the program had when it was made.
A program that gives up a privilege later must not find it again in a helper, whatever it writes to that memory or
maps at the place of the code that a helper runs. While the helper is being made, the filter's text lies in that
memory as well: but then the program itself still has all that the helper has, and gains nothing by exchanging it.

The user and the groups stay: to change them would make the memory undumpable, and that is the program's (commit_creds
in kernel/cred.c).

A call that is not allowed fails with EPERM. The task is not killed for it: the kernel would dump its core, which is
the program's memory, and what the helper holds would be lost.
"""

import struct

from mlockwipe.linux.arch import Abi
from mlockwipe.linux.mman import (
    MADV_COLLAPSE,
    MADV_DONTFORK,
    MADV_DONTNEED_LOCKED,
    MADV_POPULATE_WRITE,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MLOCK_ONFAULT,
    PROT_READ,
    PROT_WRITE,
)

# include/uapi/linux/{bpf_common,seccomp}.h
_LOAD, _JUMP, _JUMP_EQUAL, _RETURN = 0x20, 0x05, 0x15, 0x06
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM

Call = tuple[str, tuple[tuple[int, int], ...]]  # its name, and what its arguments must be: index and value
_ADVICE = (MADV_DONTNEED_LOCKED, MADV_COLLAPSE, MADV_DONTFORK, MADV_POPULATE_WRITE)
# Pages are moved by it: UFFDIO_API, UFFDIO_REGISTER and UFFDIO_MOVE of include/uapi/linux/userfaultfd.h.
_OF_USERFAULTFD = (0xC018AA3F, 0xC020AA00, 0xC028AA05)

_programs: dict[tuple[int, tuple[Call, ...]], bytes] = {}

# io_destroy: for the guardian, that has no worker any more. It reaches nothing but rings of the same memory.
KEEPER: tuple[Call, ...] = (("pause", ()), ("io_destroy", ()))


def worker(zero_fd: int | None) -> tuple[Call, ...]:
    """What a wipe consists of. All of it reaches the memory alone, which the program can change itself."""
    read: tuple[Call, ...] = () if zero_fd is None else (("read", ((0, zero_fd),)),)
    return (
        *read,
        ("mprotect", ((2, PROT_READ | PROT_WRITE),)),
        *(("madvise", ((2, advice),)) for advice in _ADVICE),
        ("munmap", ()),
        ("mmap", ((3, MAP_PRIVATE | MAP_ANONYMOUS),)),
        ("mremap", ()),
        ("brk", ((0, 0),)),
        ("munlock", ()),
        ("mlock2", ((2, MLOCK_ONFAULT),)),
        ("io_destroy", ()),
        ("userfaultfd", ()),
        *(("ioctl", ((1, request),)) for request in _OF_USERFAULTFD),
    )


def filter_program(abi: Abi, calls: tuple[Call, ...]) -> bytes:
    """An array of struct sock_filter that allows `calls` of one ABI, and nothing of any other."""
    if (program := _programs.get((abi.audit_arch, calls))) is not None:
        return program
    code = [_load(_ARCH), _skip_unless(abi.audit_arch, 1), _skip(1), _return(_REFUSE)]
    for name, arguments in calls:
        conditions = [(_NUMBER, abi.numbers[name])]
        for index, value in arguments:
            at = _ARGUMENTS + 8 * index
            conditions += [(at, value & 0xFFFFFFFF), (at + 4, value >> 32)]
        rest = 2 * len(conditions) + 1
        for offset, value in conditions:
            rest -= 2
            code += [_load(offset), _skip_unless(value, rest)]
        code.append(_return(_ALLOW))
    program = _programs[abi.audit_arch, calls] = b"".join((*code, _return(_REFUSE)))
    return program


def _load(offset: int) -> bytes:
    return _INSTRUCTION.pack(_LOAD, 0, 0, offset)


def _skip_unless(value: int, instructions: int) -> bytes:
    """Skip so many instructions, unless what was loaded is `value`."""
    return _INSTRUCTION.pack(_JUMP_EQUAL, 0, instructions, value)


def _skip(instructions: int) -> bytes:
    return _INSTRUCTION.pack(_JUMP, 0, 0, instructions)


def _return(action: int) -> bytes:
    return _INSTRUCTION.pack(_RETURN, 0, 0, action)

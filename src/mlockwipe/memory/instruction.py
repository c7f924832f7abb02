# SPDX-License-Identifier: MIT
"""A system-call instruction in the memory of a program, at which a task can be pointed.

The vdso has one, and most programs leave the vdso alone. Failing that, it is the one that the task has just executed,
or any that is found in code.
"""

import contextlib
import os
import struct

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.arch import PAGE_SIZE, Abi
from mlockwipe.linux.read_file import in_proc
from mlockwipe.linux.wait import TaskGone
from mlockwipe.memory.proc_files import Files

_AT_SYSINFO_EHDR = 33
_CHUNK = 1 << 20
_vdso_offsets: dict[int, int] = {}


def system_call_instruction(tid: int, known: int | None = None) -> tuple[Abi, int]:
    """The ABI of the code that a stopped task runs, and the address of a system-call instruction.

    `known`: where its parent had one. OSError when there is none, as far as one can see.
    """
    try:
        registers = ptrace.get_registers(tid)
        abi = registers.abi
        candidates = [known] if known is not None else []
        candidates += [*_in_vdso(tid, abi), registers.executed_at()]
        for address in candidates:
            if _is_instruction(tid, address, abi):
                return abi, address
        files = Files(tid)
    except ProcessLookupError:
        raise TaskGone(tid) from None
    except PermissionError:  # It is undumpable, and the kernel refuses a look at its memory.
        return abi, candidates[0]
    try:
        found = another_instruction(files, abi)
    finally:
        files.close()
    if found is None:
        raise OSError("there is no system call instruction in its memory")
    return abi, found


def another_instruction(files: Files, abi: Abi) -> int | None:
    """The address of one, wherever there is code."""
    for line in procfs.read_all(files.maps).splitlines():
        place, mode, *_ = line.split(maxsplit=2)
        if mode[2:3] != b"x" or b"[vsyscall]" in line:
            continue
        start, end = (int(part, 16) for part in place.split(b"-"))
        for at in range(start, end, _CHUNK):
            with contextlib.suppress(OSError):
                found = os.pread(files.memory, min(_CHUNK, end - at), at).find(abi.instruction)
                if found >= 0:
                    return at + found
    return None


def _is_instruction(tid: int, address: int, abi: Abi) -> bool:
    try:
        return ptrace.peek(tid, address)[: len(abi.instruction)] == abi.instruction
    except ProcessLookupError:
        raise
    except OSError:
        return False


def _in_vdso(tid: int, abi: Abi) -> list[int]:
    vdso = _vdso(tid, abi.word)
    if not vdso:
        return []
    offset = _vdso_offsets.get(abi.audit_arch)
    if offset is None:
        with contextlib.suppress(OSError), open(f"{tid}/mem", "rb", buffering=0, opener=in_proc) as memory:
            memory.seek(vdso)
            offset = memory.read(2 * PAGE_SIZE).find(abi.instruction)
            if offset >= 0:
                _vdso_offsets[abi.audit_arch] = offset
    return [vdso + offset] if offset is not None and offset >= 0 else []


def _vdso(tid: int, word: int) -> int:
    """The address of the vdso, from the auxiliary vector; 0 without one."""
    with contextlib.suppress(OSError), open(f"{tid}/auxv", "rb", opener=in_proc) as auxv:
        for key, value in struct.iter_unpack("=2I" if word == 4 else "=2Q", auxv.read()):
            if key == _AT_SYSINFO_EHDR:
                return int(value)
    return 0

# SPDX-License-Identifier: MIT
"""ptrace(2): requests and options (include/uapi/linux/ptrace.h); events are decoded in wait.py."""

import ctypes
import struct

from mlockwipe.linux.arch import NATIVE, Registers
from mlockwipe.linux.libc import fail, function, syscall

# include/uapi/linux/ptrace.h
_PEEKDATA = 2
_CONT = 7
_SINGLESTEP = 9
_GETREGS = 12
_SETREGS = 13
_DETACH = 17
_SYSCALL = 24
_SETOPTIONS = 0x4200
_GETEVENTMSG = 0x4201
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_LISTEN = 0x4208
_GETSIGMASK = 0x420A
_SETSIGMASK = 0x420B
_GET_SYSCALL_INFO = 0x420E
_GET_RSEQ_CONFIGURATION = 0x420F

O_TRACESYSGOOD = 1
O_TRACEFORK = 1 << 1
O_TRACEVFORK = 1 << 2
O_TRACECLONE = 1 << 3
O_TRACEEXEC = 1 << 4
O_TRACEEXIT = 1 << 6
O_TRACESECCOMP = 1 << 7
O_EXITKILL = 1 << 20
O_SUSPEND_SECCOMP = 1 << 21  # needs CAP_SYS_ADMIN, and a tracer without seccomp filters of its own

_ptrace = function("ptrace", ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def seize(tid: int, options: int) -> None:
    """Trace a task without stopping it (PTRACE_SEIZE)."""
    if _ptrace(_SEIZE, tid, 0, options) == -1:
        fail(f"ptrace(PTRACE_SEIZE, {tid})")


def set_options(tid: int, options: int) -> None:
    if _ptrace(_SETOPTIONS, tid, 0, options) == -1:
        fail(f"ptrace(PTRACE_SETOPTIONS, {tid})")


def interrupt(tid: int) -> None:
    """Ask for a stop of a seized task; it comes at its next return to user space at the latest."""
    if _ptrace(_INTERRUPT, tid, 0, 0) == -1:
        fail(f"ptrace(PTRACE_INTERRUPT, {tid})")


def cont(tid: int, signal: int = 0) -> None:
    if _ptrace(_CONT, tid, 0, signal) == -1:
        fail(f"ptrace(PTRACE_CONT, {tid})")


def cont_to_syscall_stop(tid: int) -> None:
    """Go on until the next entry to or exit from a system call (PTRACE_SYSCALL)."""
    if _ptrace(_SYSCALL, tid, 0, 0) == -1:
        fail(f"ptrace(PTRACE_SYSCALL, {tid})")


def single_step(tid: int) -> None:
    """Execute one instruction; over a system-call instruction this is the whole call."""
    if _ptrace(_SINGLESTEP, tid, 0, 0) == -1:
        fail(f"ptrace(PTRACE_SINGLESTEP, {tid})")


def listen(tid: int) -> None:
    """Let a group-stopped task stay stopped, but hear of its SIGCONT."""
    if _ptrace(_LISTEN, tid, 0, 0) == -1:
        fail(f"ptrace(PTRACE_LISTEN, {tid})")


def detach(tid: int) -> None:
    if _ptrace(_DETACH, tid, 0, 0) == -1:
        fail(f"ptrace(PTRACE_DETACH, {tid})")


def peek(tid: int, address: int) -> bytes:
    """Eight bytes of the memory of a stopped task. OSError (EIO) where there are none, or the task is undumpable."""
    word = ctypes.create_string_buffer(8)
    # Not by the C library's function, which returns the word itself.
    if syscall(NATIVE.numbers["ptrace"], _PEEKDATA, tid, address, ctypes.addressof(word), 0, 0) == -1:
        fail(f"ptrace(PTRACE_PEEKDATA, {tid})")
    return word.raw


def get_registers(tid: int) -> Registers:
    registers = Registers()
    if _ptrace(_GETREGS, tid, 0, ctypes.addressof(registers)) == -1:
        fail(f"ptrace(PTRACE_GETREGS, {tid})")
    return registers


def set_registers(tid: int, registers: Registers) -> None:
    if _ptrace(_SETREGS, tid, 0, ctypes.addressof(registers)) == -1:
        fail(f"ptrace(PTRACE_SETREGS, {tid})")


def get_event_message(tid: int) -> int:
    message = ctypes.c_ulong()
    if _ptrace(_GETEVENTMSG, tid, 0, ctypes.addressof(message)) == -1:
        fail(f"ptrace(PTRACE_GETEVENTMSG, {tid})")
    return message.value


def get_signal_mask(tid: int) -> int:
    mask = ctypes.c_uint64()
    if _ptrace(_GETSIGMASK, tid, 8, ctypes.addressof(mask)) == -1:
        fail(f"ptrace(PTRACE_GETSIGMASK, {tid})")
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    if _ptrace(_SETSIGMASK, tid, 8, ctypes.addressof(ctypes.c_uint64(mask))) == -1:
        fail(f"ptrace(PTRACE_SETSIGMASK, {tid})")


# struct ptrace_rseq_configuration: pointer, size, signature, flags, padding
_RSEQ = struct.Struct("=QIIII")


def rseq(tid: int) -> int:
    """The address of a task's struct rseq, 0 without one (PTRACE_GET_RSEQ_CONFIGURATION, Linux 5.13)."""
    configuration = ctypes.create_string_buffer(_RSEQ.size)
    if _ptrace(_GET_RSEQ_CONFIGURATION, tid, _RSEQ.size, ctypes.addressof(configuration)) == -1:
        fail(f"ptrace(PTRACE_GET_RSEQ_CONFIGURATION, {tid})")
    address: int = _RSEQ.unpack(configuration.raw)[0]
    return address


# AUDIT_ARCH_* value, number and the six arguments of a call
SyscallEntry = tuple[int, int, tuple[int, ...]]

# struct ptrace_syscall_info: op, pad[3], arch, instruction_pointer, stack_pointer, nr, args[6], ret_data
_INFO = struct.Struct("=BxxxIQQQ6QI4x")
_info = ctypes.create_string_buffer(_INFO.size)
_info_address = ctypes.addressof(_info)


def get_syscall_entry(tid: int) -> SyscallEntry:
    """The system call of a task in a seccomp stop or a syscall-entry stop (PTRACE_GET_SYSCALL_INFO, Linux 5.3)."""
    if _ptrace(_GET_SYSCALL_INFO, tid, _INFO.size, _info_address) == -1:
        fail(f"ptrace(PTRACE_GET_SYSCALL_INFO, {tid})")
    fields = _INFO.unpack_from(_info)
    return fields[1], fields[4], fields[5:11]

# SPDX-License-Identifier: MIT
"""x86-64: registers, and the system calls of its three ABIs.

A process may use any of the ABIs in any call, whatever it was started as: a 64-bit program can execute `int $0x80`
and is then in the i386 ABI for that one call. So the ABI is looked up per call, by the AUDIT_ARCH_* value that
seccomp and PTRACE_GET_SYSCALL_INFO report. x32 calls report AUDIT_ARCH_X86_64 with bit 30 set in the number; the
calls used here have the same numbers and layouts in both.

Source: arch/x86/entry/syscalls/syscall_{32,64}.tbl and arch/x86/include/asm/user_64.h, Linux 6.12.
"""

import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE_SIZE = 4096
TASK_SIZE = 1 << 47  # without five-level paging asked for by a hint, no mapping lies above
X32_SYSCALL_BIT = 0x40000000


class Registers(ctypes.Structure):
    """struct user_regs_struct, as PTRACE_GETREGS of a 64-bit tracer gives it for tasks of every ABI."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in [
            "r15",
            "r14",
            "r13",
            "r12",
            "rbp",
            "rbx",
            "r11",
            "r10",
            "r9",
            "r8",
            "rax",
            "rcx",
            "rdx",
            "rsi",
            "rdi",
            "orig_rax",
            "rip",
            "cs",
            "eflags",
            "rsp",
            "ss",
            "fs_base",
            "gs_base",
            "ds",
            "es",
            "fs",
            "gs",
        ]
    ]

    r10: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    r8: int
    r9: int
    rbx: int
    rbp: int
    orig_rax: int
    rip: int
    rsp: int

    @property
    def result(self) -> int:
        """The value that the system call returns: negative errno when it failed."""
        value = self.rax
        return value - (1 << 64) if value >> 63 else value

    @property
    def is_compat(self) -> bool:
        """Whether the task runs 32-bit code (its code segment is the 32-bit one)."""
        return bool(self.cs == 0x23)


class Abi:
    """How one ABI makes a system call."""

    def __init__(
        self,
        *,
        audit_arch: int,
        instruction: bytes,
        arguments: tuple[str, ...],
        numbers: "Mapping[str, int]",
        address_mask: int,
    ) -> None:
        self.audit_arch = audit_arch
        self.instruction = instruction
        self.arguments = arguments
        self.numbers = numbers
        self.address_mask = address_mask


X86_64 = Abi(
    audit_arch=0xC000003E,
    instruction=b"\x0f\x05",  # syscall
    arguments=("rdi", "rsi", "rdx", "r10", "r8", "r9"),
    numbers={
        "read": 0,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "mremap": 25,
        "madvise": 28,
        "shmat": 30,
        "pause": 34,
        "clone": 56,
        "wait4": 61,
        "chdir": 80,
        "setsid": 112,
        "mlock": 149,
        "munlock": 150,
        "mlockall": 151,
        "munlockall": 152,
        "prctl": 157,
        "io_destroy": 207,
        "openat": 257,
        "seccomp": 317,
        "mlock2": 325,
        "clone3": 435,
        "close_range": 436,
        "process_madvise": 440,
    },
    address_mask=(1 << 64) - 1,
)

I386 = Abi(
    audit_arch=0x40000003,
    instruction=b"\xcd\x80",  # int $0x80
    arguments=("rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    numbers={
        "read": 3,
        "chdir": 12,
        "pause": 29,
        "brk": 45,
        "setsid": 66,
        "old_mmap": 90,  # one argument: the address of six
        "munmap": 91,
        "wait4": 114,
        "ipc": 117,
        "clone": 120,
        "mprotect": 125,
        "mlock": 150,
        "munlock": 151,
        "mlockall": 152,
        "munlockall": 153,
        "mremap": 163,
        "prctl": 172,
        "mmap": 192,  # mmap2: the offset counts pages
        "madvise": 219,
        "io_destroy": 246,
        "openat": 295,
        "seccomp": 354,
        "mlock2": 376,
        "shmat": 397,
        "clone3": 435,
        "close_range": 436,
        "process_madvise": 440,
    },
    address_mask=(1 << 32) - 1,
)

ABIS: "Mapping[int, Abi]" = {abi.audit_arch: abi for abi in (X86_64, I386)}

_NAMES = {abi.audit_arch: {number: name for name, number in abi.numbers.items()} for abi in ABIS.values()}


def call_name(audit_arch: int, number: int) -> str:
    """The name of a system call that this file knows.

    Raises KeyError for any other.
    """
    return _NAMES[audit_arch][number & ~X32_SYSCALL_BIT]

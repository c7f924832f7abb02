# SPDX-License-Identifier: MIT
"""x86-64: registers, system call numbers and calling conventions of its three ABIs.

A process may use any of the ABIs in any call, whatever it was started as: a 64-bit program can execute `int $0x80`
and is then in the i386 ABI for that one call. So the ABI is looked up per call, by the AUDIT_ARCH_* value that
seccomp and PTRACE_GET_SYSCALL_INFO report. x32 calls report AUDIT_ARCH_X86_64 with bit 30 set in the number; the
calls used here have the same numbers and layouts in both, but for ioctl.

Source: arch/x86/entry/syscalls/syscall_{32,64}.tbl and arch/x86/include/asm/user_64.h, Linux 6.12.
"""

import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE_SIZE = 4096
RED_ZONE = 128  # bytes below the stack pointer that a function may use
TASK_SIZE = 1 << 47  # without five-level paging asked for by a hint, no mapping lies above

X32_SYSCALL_BIT = 0x40000000
_CS_32 = 0x23  # the code segment of 32-bit programs
_NO_CALL = (1 << 64) - 1


class Abi:
    """How one ABI makes a system call.

    `audit_arch`: its AUDIT_ARCH_* value. `word`: the size of a pointer in bytes. `instruction`: the machine code of a
    system call. `numbers`: of the calls that are used anywhere here. `waiting`: of those that a signal ends before
    their time or with a part of what they were to do. `close`: the number of the call that may not be made once more.
    `filtered_as`: what libseccomp calls the ABI and those that share its calls. `mmap`: and its mmap with the flags
    in a register; `mmap_in_memory`: and the one whose arguments lie in memory, where a filter can't look.
    """

    def __init__(
        self,
        *,
        audit_arch: int,
        word: int,
        instruction: bytes,
        arguments: tuple[str, ...],
        numbers: "Mapping[str, int]",
        waiting: "Mapping[str, int]",
        close: int,
        filtered_as: tuple[int, ...],
        mmap: str,
        mmap_in_memory: str | None,
    ) -> None:
        self.audit_arch = audit_arch
        self.word = word
        self.instruction = instruction
        self.arguments = arguments
        self.numbers = numbers
        self.waiting = waiting
        self.close = close
        self.filtered_as = filtered_as
        self.mmap = mmap
        self.mmap_in_memory = mmap_in_memory
        self.address_mask = (1 << 8 * word) - 1
        self._names = {number: name for name, number in numbers.items()}
        self._waiting_names = {number: name for name, number in waiting.items()}

    def name(self, number: int) -> str:
        """The name of a call by its number. KeyError for one that is not used here."""
        return self._names[number & ~X32_SYSCALL_BIT]

    def waiting_name(self, number: int) -> str:
        """The name of one of the `waiting` calls, '' for others. Not of x32, where vectors and times are others."""
        return self._waiting_names.get(number, "")

    def word_in_memory(self, number: int) -> int:
        """The size of a pointer in what the arguments of a call point at: x32 has long registers, and short words."""
        return 4 if number & X32_SYSCALL_BIT else self.word


class Registers(ctypes.Structure):
    """struct user_regs_struct, as PTRACE_GETREGS of a 64-bit tracer gives it for tasks of every ABI."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
            *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
        )
    ]

    rax: int
    orig_rax: int
    rip: int
    cs: int
    rsp: int

    @property
    def call_names(self) -> tuple[str, ...]:
        """The registers that tell one system call from another: instruction, stack, number and arguments."""
        return ("rip", "rsp", "orig_rax", *self.abi.arguments)

    @property
    def may_call_again(self) -> bool:
        """Whether this is a call that can be made once more: close(2) has closed even if it returns EINTR."""
        return self.orig_rax != _NO_CALL and self.orig_rax & ~X32_SYSCALL_BIT != self.abi.close

    @property
    def abi(self) -> Abi:
        """The ABI of the code that the task runs."""
        return I386 if self.cs == _CS_32 else X86_64

    @property
    def in_call(self) -> bool:
        """Whether the task is in a system call, or on its way out of one."""
        return self.orig_rax != _NO_CALL

    @property
    def instruction_pointer(self) -> int:
        return self.rip

    def go_on_at(self, address: int) -> None:
        self.rip = address

    @property
    def stack_pointer(self) -> int:
        return self.rsp

    @property
    def number(self) -> int:
        """Of the system call that the task is in, or has just returned from: an int, like in the kernel."""
        return self.orig_rax & 0xFFFFFFFF

    @property
    def result(self) -> int:
        """The value that the system call returns: negative errno when it failed."""
        value = self.rax
        return value - (1 << 64) if value >> 63 else value

    def set_result(self, value: int) -> None:
        self.rax = value & _NO_CALL

    def argument(self, index: int) -> int:
        return int(getattr(self, self.abi.arguments[index]))

    def set_argument(self, index: int, value: int) -> None:
        setattr(self, self.abi.arguments[index], value)

    def executed_at(self) -> int:
        """The address of the system-call instruction that the task has executed last."""
        return self.rip - len(self.abi.instruction)

    def again(self) -> "Registers":
        """As these, but to have the task make its call once more, whether it is stopped for a signal or not."""
        registers = Registers.from_buffer_copy(self)
        registers.rip, registers.rax, registers.orig_rax = self.executed_at(), self.orig_rax, _NO_CALL
        return registers

    def aim(self, abi: Abi, instruction: int, name: str, arguments: "Sequence[int]") -> None:
        """Have the task execute a call next. `instruction`: the address of a system-call instruction."""
        self.rip = instruction
        self.rax = abi.numbers[name]
        self.orig_rax = _NO_CALL  # or the kernel may restart the call that the task was stopped in
        for register, value in zip(abi.arguments, arguments, strict=False):
            setattr(self, register, value & abi.address_mask)


X86_64 = Abi(
    audit_arch=0xC000003E,
    word=8,
    instruction=b"\x0f\x05",  # syscall
    arguments=("rdi", "rsi", "rdx", "r10", "r8", "r9"),
    numbers={
        "read": 0,
        "open": 2,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "ioctl": 16,
        "mremap": 25,
        "madvise": 28,
        "shmat": 30,
        "shmctl": 31,
        "pause": 34,
        "recvmsg": 47,
        "socketpair": 53,
        "clone": 56,
        "fork": 57,
        "vfork": 58,
        "exit": 60,
        "wait4": 61,
        "fcntl": 72,
        "chdir": 80,
        "ptrace": 101,
        "setsid": 112,
        "capset": 126,
        "sched_setparam": 142,
        "sched_setscheduler": 144,
        "mlock": 149,
        "munlock": 150,
        "mlockall": 151,
        "munlockall": 152,
        "prctl": 157,
        "io_setup": 206,
        "io_destroy": 207,
        "io_submit": 209,
        "tgkill": 234,
        "waitid": 247,
        "openat": 257,
        "kcmp": 312,
        "sched_setattr": 314,
        "seccomp": 317,
        "userfaultfd": 323,
        "mlock2": 325,
        "pidfd_send_signal": 424,
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "open_tree": 428,
        "clone3": 435,
        "close_range": 436,
        "pidfd_getfd": 438,
        "openat2": 437,
        "process_madvise": 440,
        "memfd_secret": 447,
        "process_mrelease": 448,
        "mseal": 462,
        "x32_ioctl": 514,  # the one call used here that has a number of its own there
    },
    waiting={
        "read": 0,
        "write": 1,
        "readv": 19,
        "writev": 20,
        "sendfile": 40,
        "connect": 42,
        "accept": 43,
        "sendto": 44,
        "recvfrom": 45,
        "sendmsg": 46,
        "recvmsg": 47,
        "rt_sigtimedwait": 128,
        "io_getevents": 208,
        "semtimedop": 220,
        "epoll_wait": 232,
        "ppoll": 271,
        "epoll_pwait": 281,
        "accept4": 288,
        "recvmmsg": 299,
        "sendmmsg": 307,
        "getrandom": 318,
        "io_pgetevents": 333,
        "io_uring_enter": 426,
        "epoll_pwait2": 441,
    },
    close=3,
    filtered_as=(0xC000003E, 0x4000003E),  # and x32
    mmap="mmap",
    mmap_in_memory=None,
)

I386 = Abi(
    audit_arch=0x40000003,
    word=4,
    instruction=b"\xcd\x80",  # int $0x80
    arguments=("rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    numbers={
        "fork": 2,
        "read": 3,
        "open": 5,
        "waitpid": 7,
        "chdir": 12,
        "pause": 29,
        "brk": 45,
        "ioctl": 54,
        "fcntl": 55,
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
        "sched_setparam": 154,
        "sched_setscheduler": 156,
        "mremap": 163,
        "prctl": 172,
        "capset": 185,
        "vfork": 190,
        "mmap": 192,  # mmap2: the offset counts pages
        "madvise": 219,
        "fcntl64": 221,
        "io_setup": 245,
        "io_destroy": 246,
        "waitid": 284,
        "openat": 295,
        "sched_setattr": 351,
        "seccomp": 354,
        "socketpair": 360,
        "recvmsg": 372,
        "userfaultfd": 374,
        "mlock2": 376,
        "shmat": 397,
        "io_uring_setup": 425,
        "clone3": 435,
        "close_range": 436,
        "openat2": 437,
        "process_madvise": 440,
    },
    waiting={
        "read": 3,
        "write": 4,
        "readv": 145,
        "writev": 146,
        "rt_sigtimedwait": 177,
        "sendfile": 187,
        "sendfile64": 239,
        "io_getevents": 247,
        "epoll_wait": 256,
        "ppoll": 309,
        "epoll_pwait": 319,
        "recvmmsg": 337,
        "sendmmsg": 345,
        "getrandom": 355,
        "connect": 362,
        "accept4": 364,
        "sendto": 369,
        "sendmsg": 370,
        "recvfrom": 371,
        "recvmsg": 372,
        "io_pgetevents": 385,
        "ppoll_time64": 414,
        "io_pgetevents_time64": 416,
        "semtimedop_time64": 420,
        "rt_sigtimedwait_time64": 421,
        "io_uring_enter": 426,
        "epoll_pwait2": 441,
    },
    close=6,
    filtered_as=(0x40000003,),
    mmap="mmap2",
    mmap_in_memory="mmap",
)

ABIS: "Mapping[int, Abi]" = {abi.audit_arch: abi for abi in (X86_64, I386)}

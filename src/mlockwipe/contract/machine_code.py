# SPDX-License-Identifier: MIT
"""Machine code: for tasks that share a case's memory and can't share its interpreter, and for the other ABIs."""

import ctypes
import signal
import struct

from mlockwipe.linux import clone, mm, mman

TYPE_CHECKING = False  # typing's own constant costs the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# mov edi, 7; mov eax, 60 (exit); syscall
EXIT_7 = bytes.fromhex("bf 07000000 b8 3c000000 0f05")
# mov eax, 34 (pause); syscall; and again
PAUSE = bytes.fromhex("b8 22000000 0f05 ebf7")
# rdi points to path, argv and envp: mov rdx, [rdi+16]; mov rsi, [rdi+8]; mov rdi, [rdi]; mov eax, 59
# (execve); syscall; mov edi, 127; mov eax, 60 (exit); syscall
EXEC = bytes.fromhex("488b5710 488b7708 488b3f b8 3b000000 0f05 bf 7f000000 b8 3c000000 0f05")
# A C function (number, a1, a2, a3, a4, a5): push rbx; push rbp; mov eax, edi; mov ebx, esi; xchg ecx, edx;
# mov esi, r8d; mov edi, r9d; xor ebp, ebp; int 0x80; cdqe; pop rbp; pop rbx; ret
_INT_80 = bytes.fromhex("53 55 89f8 89f3 87ca 4489c6 4489cf 31ed cd80 4898 5d 5b c3")

# mov eax, 39 (getpid); syscall; cmp eax, PID; je to ret; mov rcx, COUNTER; lock inc dword [rcx]; ret
_COUNT_STRANGERS = struct.Struct("=7sBI2s2sQ4s")

_STACK = 65536


def counts_strangers(pid: int, counter: int) -> bytes:
    """A function that counts whoever runs it and is not this process, in 32 bits at `counter`."""
    return _COUNT_STRANGERS.pack(
        bytes.fromhex("b8 27000000 0f05"), 0x3D, pid, b"\x74\x0d", b"\x48\xb9", counter, b"\xf0\xff\x01\xc3"
    )


def place(code: bytes) -> int:
    """The address of `code`, ready to run."""
    at = mm.mmap(0, len(code), mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    ctypes.memmove(at, code, len(code))
    mm.mprotect(at, len(code), mman.PROT_READ | mman.PROT_EXEC)
    return at


def share(code: bytes, flags: int = 0, argument: int = 0) -> int:
    """A child that shares this process's memory and runs `code`; its number."""
    stack = mm.mmap(0, _STACK, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS)
    return clone.clone(place(code), stack + _STACK, mman.CLONE_VM | flags | signal.SIGCHLD, argument)


def vfork(code: bytes, argument: int = 0) -> int:
    """As vfork does: return when the child has executed another program or is gone."""
    return share(code, mman.CLONE_VFORK, argument)


def vfork_exec(path: str, argv: "Sequence[str]") -> int:
    """A vfork child that executes a program, or exits with 127."""
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*(argument.encode() for argument in argv), None)
    environment = (ctypes.c_char_p * 1)(None)
    name = ctypes.create_string_buffer(path.encode())
    block = (ctypes.c_void_p * 3)(*(ctypes.addressof(part) for part in (name, arguments, environment)))
    return vfork(EXEC, ctypes.addressof(block))


def int_80() -> "Callable[..., int]":
    """A function (number, *arguments) that makes a system call as a 32-bit program does.

    A 64-bit process may do so at any time. Addresses have to be below 4 GiB. It dies of SIGSEGV where the
    kernel runs no 32-bit programs.
    """
    word = ctypes.c_uint32
    return ctypes.CFUNCTYPE(ctypes.c_long, word, word, word, word, word, word)(place(_INT_80))

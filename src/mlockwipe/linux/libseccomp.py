# SPDX-License-Identifier: MIT
"""libseccomp: from rules to a BPF program, for several architectures (include/seccomp.h.in of libseccomp 2.5).

The library is called directly. Its Python wrapper on PyPI had its last release in January 2021 and takes 30 ms to
import, because it looks the library up by running ldconfig; every start of `mlockwipe run` would pay for that.
"""

import ctypes
import errno
import os
import struct

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RET_USER_NOTIF = 0x7FC00000
RET_TRACE = 0x7FF00000
RET_ALLOW = 0x7FFF0000

_NE, _EQ, _MASKED_EQ = 1, 4, 7
_ATTRIBUTE_BAD_ARCH_ACTION = 2


# struct scmp_arg_cmp, a condition on one argument of a call: the argument, an operator, one or two values. Packed by
# hand, because ctypes would make a type of it and one of each length of array at every start.
_COMPARE = struct.Struct("=IIQQ")


def equal(argument: int, value: int) -> bytes:
    return _COMPARE.pack(argument, _EQ, value, 0)


def differs(argument: int, value: int) -> bytes:
    return _COMPARE.pack(argument, _NE, value, 0)


def masked(argument: int, mask: int, value: int) -> bytes:
    return _COMPARE.pack(argument, _MASKED_EQ, mask, value)


def equal_int(argument: int, value: int) -> bytes:
    """For what the kernel's prototype calls an int: whatever stands in the upper half of the register is ignored."""
    return masked(argument, 0xFFFFFFFF, value)


def has_flag(argument: int, flag: int) -> bytes:
    return masked(argument, flag, flag)


# An action for the calls of one name on which every condition holds.
Rule = tuple[int, str, tuple[bytes, ...]]


def version() -> str:
    """'2.5.4'. ImportError without the library."""
    library = _library()
    library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint)  # struct scmp_version: major, minor, micro
    return ".".join(map(str, library.seccomp_version()[:3]))


def _library() -> ctypes.PyDLL:
    try:
        library = ctypes.PyDLL("libseccomp.so.2")
    except OSError as error:
        raise ImportError(str(error), name="libseccomp.so.2") from None
    context = ctypes.c_void_p
    library.seccomp_init.restype = context
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [context]
    library.seccomp_merge.argtypes = [context, context]
    library.seccomp_arch_add.argtypes = [context, ctypes.c_uint32]
    library.seccomp_arch_remove.argtypes = [context, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [context, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [context, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        context,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_char_p,
    ]
    return library


def compile_filter(rules_by_arch: "Iterable[tuple[tuple[int, ...], Iterable[Rule]]]") -> bytes:
    """One BPF program (an array of struct sock_filter) that allows every call but those of the rules.

    `rules_by_arch` pairs architectures with their rules; each architecture may stand once. The rules are kept
    apart because libseccomp takes one condition for a call of the same name in every architecture, and i386 has
    two calls named mmap. Calls of an architecture that is not named are allowed.

    ImportError without the library.
    """
    library = _library()
    whole: int | None = None
    for architectures, rules in rules_by_arch:
        context = library.seccomp_init(RET_ALLOW)
        _must(library.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCH_ACTION, RET_ALLOW), "seccomp_attr_set")
        for architecture in architectures:
            _may_exist(library.seccomp_arch_add(context, architecture), "seccomp_arch_add")
        if NATIVE.audit_arch not in architectures:
            _must(library.seccomp_arch_remove(context, NATIVE.audit_arch), "seccomp_arch_remove")
        for action, call, conditions in rules:
            number = library.seccomp_syscall_resolve_name(call.encode())
            _must(
                library.seccomp_rule_add_array(context, action, number, len(conditions), b"".join(conditions)),
                f"seccomp_rule_add({call})",
            )
        if whole is None:
            whole = context
        else:
            _must(library.seccomp_merge(whole, context), "seccomp_merge")  # this releases the second
    fd = os.memfd_create("seccomp-filter", os.MFD_CLOEXEC)
    try:
        _must(library.seccomp_export_bpf(whole, fd), "seccomp_export_bpf")
        return os.pread(fd, 1 << 16, 0)
    finally:
        os.close(fd)
        library.seccomp_release(whole)


def _must(result: int, attempted: str) -> None:
    if result < 0:
        fail(attempted, -result)


def _may_exist(result: int, attempted: str) -> None:
    if result != -errno.EEXIST:
        _must(result, attempted)

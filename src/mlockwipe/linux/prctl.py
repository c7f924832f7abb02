# SPDX-License-Identifier: MIT
"""prctl(2): attributes of the calling process or thread (include/uapi/linux/prctl.h)."""

import ctypes

from mlockwipe.linux.libc import checked, function

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_MM = 35
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_PR_SET_THP_DISABLE = 41

_ulong = ctypes.c_ulong
_prctl = function("prctl", ctypes.c_int, ctypes.c_int, _ulong, _ulong, _ulong, _ulong)


def set_name(name: bytes) -> None:
    """The name of this thread in ps and top, of at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name)
    checked(_prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0), "prctl(PR_SET_NAME)")


def become_subreaper() -> None:
    """Orphaned descendants become children of this process, as they would of process 1."""
    checked(_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def set_no_new_privileges() -> None:
    checked(_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def allow_huge_pages() -> None:
    """Take back PR_SET_THP_DISABLE, which is inherited by fork and kept over exec, if that is allowed here."""
    _prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)


def set_undumpable() -> None:
    """No core dump of this process, and no access to its memory by other processes of the same user."""
    checked(_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")

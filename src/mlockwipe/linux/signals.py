# SPDX-License-Identifier: MIT
"""signal(7): numbers, masks and dispositions (arch/x86/include/uapi/asm/signal.h).

Python's own signal module would do. It makes enums of all its constants, which with enum itself takes 3 ms to import,
and every start of `mlockwipe run` would pay for that.
"""

import ctypes

from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.libc import checked, fail, function, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGHUP = 1
SIGINT = 2
SIGQUIT = 3
SIGKILL = 9
SIGPIPE = 13
SIGALRM = 14
SIGTERM = 15
SIGCHLD = 17
SIGCONT = 18
SIGSTOP = 19
SIGTSTP = 20
SIGTTIN = 21
SIGURG = 23
SIGXFSZ = 25
SIGWINCH = 28

STOPPING = frozenset((SIGSTOP, SIGTSTP, SIGTTIN))

ALL = frozenset(range(1, 65)) - {32, 33}  # glibc keeps these two for its threads

SIG_BLOCK = 0
SIG_UNBLOCK = 1
SIG_SETMASK = 2

_SIG_DFL = 0
_SIG_ERR = ctypes.c_void_p(-1).value
_SYS_PIDFD_SEND_SIGNAL = NATIVE.numbers["pidfd_send_signal"]
_SYS_TGKILL = NATIVE.numbers["tgkill"]

_SignalSet = ctypes.c_uint64 * 16  # glibc's sigset_t, of which the kernel knows the first 64 bits

_pthread_sigmask = function("pthread_sigmask", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_sigpending = function("sigpending", ctypes.c_int, ctypes.c_void_p)
_signal = function("signal", ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def as_bits(signals: "Iterable[int]") -> int:
    """The signals as the kernel's sigset_t."""
    return sum(1 << (number - 1) for number in signals)


def change_mask(how: int, signals: "Iterable[int]") -> set[int]:
    """Block, unblock or set the blocked signals of this thread (SIG_BLOCK, ...): those that were blocked before."""
    new, old = _SignalSet(as_bits(signals)), _SignalSet()
    error = _pthread_sigmask(how, ctypes.addressof(new), ctypes.addressof(old))
    if error:
        fail("pthread_sigmask", error)
    return {number for number in range(1, 65) if old[0] >> (number - 1) & 1}


def pending() -> int:
    """The blocked signals that wait for this thread or its process, as the kernel's sigset_t."""
    found = _SignalSet()
    checked(_sigpending(ctypes.addressof(found)), "sigpending")
    return int(found[0])


def restore_default(number: int) -> None:
    """Let a signal do what it does to a process that has no handler for it."""
    if _signal(number, _SIG_DFL) == _SIG_ERR:
        fail(f"signal({number}, SIG_DFL)")


def send_by_pidfd(pidfd: int, number: int) -> None:
    checked(syscall(_SYS_PIDFD_SEND_SIGNAL, pidfd, number, 0, 0, 0, 0), f"pidfd_send_signal({pidfd}, {number})")


def send_to_thread(tgid: int, tid: int, number: int) -> None:
    checked(syscall(_SYS_TGKILL, tgid, tid, number, 0, 0, 0), f"tgkill({tgid}, {tid}, {number})")

# SPDX-License-Identifier: MIT
"""signalfd(2): blocked signals, read from a descriptor."""

import ctypes
import os
import struct

from mlockwipe.linux.libc import checked, function
from mlockwipe.linux.signals import as_bits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CLOEXEC = 0o2000000
_NONBLOCK = 0o4000
SI_KERNEL = 0x80  # si_code of a signal that the kernel sent by itself, as the terminal does for Ctrl-C

_signalfd = function("signalfd", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_INFO = struct.Struct("=IiiI112x")  # struct signalfd_siginfo: signo, errno, code, pid, ...


class SignalInfo:
    """A signal's number, its si_code, and the pid of who sent it."""

    __slots__ = ("code", "sender", "signal")

    def __init__(self, signal: int, code: int, sender: int) -> None:
        self.signal = signal
        self.code = code
        self.sender = sender


def open_signalfd(signals: "Iterable[int]") -> int:
    """A non-blocking descriptor for `signals`, which the caller has blocked."""
    mask = ctypes.c_uint64(as_bits(signals))
    # glibc's sigset_t is 128 bytes, of which signalfd reads the kernel's 8
    return checked(_signalfd(-1, ctypes.addressof(mask), _CLOEXEC | _NONBLOCK), "signalfd")


def read_signals(fd: int) -> list[SignalInfo]:
    """Take the pending signals off the descriptor."""
    try:
        data = os.read(fd, 64 * _INFO.size)
    except BlockingIOError:
        return []
    return [SignalInfo(signo, code, pid) for signo, _, code, pid in _INFO.iter_unpack(data)]

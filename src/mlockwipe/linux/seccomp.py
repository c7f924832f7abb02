# SPDX-License-Identifier: MIT
"""seccomp(2): installing a filter with a listener, and user notification (include/uapi/linux/seccomp.h)."""

import contextlib
import ctypes
import errno
import fcntl
import struct
from collections import namedtuple

from mlockwipe.linux.libc import fail, syscall

_SYS_SECCOMP = 317
_SET_MODE_FILTER = 1
FLAG_TSYNC = 1 << 0
FLAG_NEW_LISTENER = 1 << 3
FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19


def install_with_listener(program: bytes) -> int:
    """Install a filter in the calling thread and return its notification listener.

    The waits of notified calls are killable only once a listener has received them (Linux 5.19): a signal can't
    turn a lock into EINTR. Needs no_new_privs or CAP_SYS_ADMIN (EACCES); EBUSY: the process is under another
    listener already; EINVAL: kernel older than 5.19.
    """
    code = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    flags = FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV
    buffer = ctypes.create_string_buffer(descriptor, len(descriptor))
    fd: int = syscall(_SYS_SECCOMP, _SET_MODE_FILTER, flags, ctypes.addressof(buffer), 0, 0, 0)
    if fd == -1:
        fail("seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER)")
    return fd


# ioctls of the listener: SECCOMP_IOCTL_NOTIF_*, type '!'
_RECV = 0xC0502100
_SEND = 0xC0182101
_ID_VALID = 0x40082102
_SET_FLAGS = 0x40082104
_RESPONSE_CONTINUE = 1
_SYNC_WAKE_UP = 1

# struct seccomp_notif: id, pid, flags, then struct seccomp_data: nr, arch, instruction_pointer, args[6]
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")


# A call that waits for an answer: `tid` as the reader's PID namespace sees it (0: not at all).
Notification = namedtuple("Notification", "id tid number audit_arch instruction_pointer arguments")


_received = bytearray(_NOTIFICATION.size)


def _ioctl(listener: int, request: int, argument: bytes | bytearray) -> None:
    while True:
        try:
            fcntl.ioctl(listener, request, argument)
            return
        except InterruptedError:
            pass  # by a signal of our own: unlike os.read, fcntl.ioctl is not restarted by Python


def receive(listener: int) -> Notification | None:
    """The next notification, or None when the task that asked is gone or was interrupted by a signal."""
    _received[:] = bytes(_NOTIFICATION.size)  # the kernel refuses a buffer that is not zero
    try:
        _ioctl(listener, _RECV, _received)
    except FileNotFoundError:
        return None
    fields = _NOTIFICATION.unpack(_received)
    return Notification(fields[0], fields[1], fields[3], fields[4], fields[5], fields[6:12])


def is_pending(listener: int, notification: Notification) -> bool:
    """Whether the call still waits: as long as it does, its tid has not been given to another task."""
    try:
        _ioctl(listener, _ID_VALID, struct.pack("=Q", notification.id))
    except FileNotFoundError:
        return False
    return True


def let_go_on(listener: int, notification: Notification) -> None:
    """Let the kernel execute the call."""
    _answer(listener, _RESPONSE.pack(notification.id, 0, 0, _RESPONSE_CONTINUE))


def refuse(listener: int, notification: Notification, error: int) -> None:
    """Let the call return -`error` without executing it."""
    _answer(listener, _RESPONSE.pack(notification.id, 0, -error, 0))


def _answer(listener: int, response: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):  # the task was killed meanwhile
        _ioctl(listener, _SEND, response)


def wake_synchronously(listener: int) -> None:
    """Ask that notifications hand the CPU over instead of waking the reader on another one (Linux 6.6)."""
    try:
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise

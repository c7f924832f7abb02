# SPDX-License-Identifier: MIT
"""seccomp(2): the listener's side of user notification (include/uapi/linux/seccomp.h)."""

import contextlib
import errno
import fcntl
import struct
from collections import namedtuple

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

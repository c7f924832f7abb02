# SPDX-License-Identifier: MIT
"""What is left of a call that a signal has interrupted: of its time, and of what it was to transfer."""

import ctypes
import errno
import fcntl
import os
import stat
import struct

from mlockwipe.linux import descriptor
from mlockwipe.linux.arch import Registers
from mlockwipe.tracing.task import Task

Step = tuple[int, tuple[int, ...], int]  # number and arguments of a call, and what it returns when it has done all

# include/linux/socket.h
_MSG_PEEK, _MSG_TRUNC, _MSG_DONTWAIT, _MSG_WAITALL, _MSG_ZEROCOPY = 0x2, 0x20, 0x40, 0x100, 0x4000000
# include/uapi/linux/io_uring.h
_ENTER_GETEVENTS, _ENTER_EXT_ARG, _ENTER_ABS_TIMER, _ENTER_EXT_ARG_REG = 1, 8, 32, 64
_MEMORY_DEVICES = 1  # Documentation/admin-guide/devices.txt: /dev/zero, /dev/random, /dev/urandom ...
_MOST_PIECES = 1024  # UIO_MAXIOV

# By name: which argument is the address of a struct timespec, and what the call returns when that time is up.
_TIMEOUTS = {
    "epoll_pwait2": (3, 0),
    "io_getevents": (4, 0),
    "io_pgetevents": (4, 0),
    "io_pgetevents_time64": (4, 0),
    "ppoll": (2, 0),
    "ppoll_time64": (2, 0),
    "rt_sigtimedwait": (2, -errno.EAGAIN),
    "rt_sigtimedwait_time64": (2, -errno.EAGAIN),
    "semtimedop": (3, -errno.EAGAIN),
    "semtimedop_time64": (3, -errno.EAGAIN),
}
_RECEIVING = frozenset(("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "accept", "accept4"))
_SENDING = frozenset(("write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile", "sendfile64", "connect"))
_WANTED = {"read": 2, "write": 2, "sendto": 2, "recvfrom": 2, "sendfile": 3, "sendfile64": 3, "getrandom": 1}


def time_limit(task: Task, registers: Registers) -> tuple[float, int] | None:
    """The seconds that an interrupted call takes at most, and what it returns then; None where that is not known."""
    name = registers.abi.waiting_name(registers.number)
    if name in ("epoll_wait", "epoll_pwait"):
        milliseconds = ctypes.c_int(registers.argument(3) & 0xFFFFFFFF).value
        return (milliseconds / 1000, 0) if milliseconds >= 0 else None
    if name in _TIMEOUTS:
        index, result = _TIMEOUTS[name]
        narrow = registers.abi.word == 4 and not name.endswith("64") and name != "epoll_pwait2"
        return _timespec(task, registers.argument(index), "=ii" if narrow else "=qq", result)
    if name == "io_uring_enter":
        return _ring_timeout(task, registers)
    if name in _RECEIVING:
        return _socket_timeout(task, registers.argument(0), descriptor.SO_RCVTIMEO)
    if name in _SENDING:
        return _socket_timeout(task, registers.argument(0), descriptor.SO_SNDTIMEO, connects=name == "connect")
    return None


def _timespec(task: Task, address: int, layout: str, result: int) -> tuple[float, int] | None:
    if not address:
        return None
    block = _read(task, address, struct.calcsize(layout))
    if block is None:
        return None
    seconds, nanoseconds = struct.unpack(layout, block)
    return seconds + nanoseconds / 1e9, result


def _ring_timeout(task: Task, registers: Registers) -> tuple[float, int] | None:
    flags = registers.argument(3)
    if not flags & _ENTER_EXT_ARG or flags & (_ENTER_ABS_TIMER | _ENTER_EXT_ARG_REG):
        return None
    block = _read(task, registers.argument(4) + 16, 8)  # the last field of struct io_uring_getevents_arg
    return None if block is None else _timespec(task, int.from_bytes(block, "little"), "=qq", -errno.ETIME)


def _socket_timeout(task: Task, fd: int, option: int, *, connects: bool = False) -> tuple[float, int] | None:
    try:
        with descriptor.copied(task.tgid, fd) as copy:
            seconds, microseconds = descriptor.socket_option(copy, option)
            local = descriptor.socket_option(copy, descriptor.SO_DOMAIN)[0] == descriptor.AF_UNIX
    except OSError:  # no socket, or an undumpable process of an ordinary user
        return None
    if not seconds and not microseconds:
        return None
    return seconds + microseconds / 1e6, -(errno.EINPROGRESS if connects and not local else errno.EAGAIN)


def may_be_short(registers: Registers) -> bool:
    """Whether a call has perhaps transferred less than it was to; `rest` knows it for sure."""
    done = registers.result
    if done <= 0:
        return False
    name = registers.abi.waiting_name(registers.number)
    if name in _WANTED:
        return done < registers.argument(_WANTED[name]) & registers.abi.address_mask
    if name in ("io_getevents", "io_pgetevents"):
        return done < registers.argument(1)
    if name == "io_uring_enter":  # it says what it has submitted, not whether it has waited to the end
        return bool(registers.argument(2) and registers.argument(3) & _ENTER_GETEVENTS)
    return name in ("readv", "writev", "sendmsg", "recvmsg")


def rest(task: Task, registers: Registers) -> list[Step]:
    """The calls that transfer what one that was interrupted has not, where by itself it would have transferred all.

    Those with vectors are followed by a call for each part of them: nothing of the program's memory is changed.
    """
    abi = registers.abi
    name = abi.waiting_name(registers.number)
    fd, *arguments = (registers.argument(index) & abi.address_mask for index in range(6))
    done = registers.result
    same = registers.number
    flags, more = 0, tuple[int, ...]()
    match name:
        case "getrandom":
            buffer, length = fd, arguments[0]
            return [(same, (buffer + done, length - done, arguments[1]), length - done)]
        case "io_getevents" | "io_pgetevents":
            least, most, events = arguments[:3]  # of 32 bytes each
            return [(same, (fd, least - done, most - done, events + 32 * done), most - done)]
        case "io_uring_enter":
            return [(same, (fd, 0, *arguments[1:]), 0)] if done == arguments[0] else []
        case "sendfile" | "sendfile64":  # which has advanced the offset
            left = arguments[2] - done
            return [(same, (fd, *arguments[:2], left), left)] if _takes_all(task, fd, sockets_only=True) else []
        case "read" | "write":
            pieces, call = [(arguments[0], arguments[1])], same
        case "readv" | "writev":
            pieces, call = _vector(task, registers, arguments[0], arguments[1]), abi.waiting[name[:-1]]
        case "sendto" | "recvfrom":
            flags = arguments[2]
            pieces, call, more = [(arguments[0], arguments[1])], same, (flags, 0, 0)
        case "sendmsg" | "recvmsg":
            flags = arguments[1]
            pieces = _message(task, registers, arguments[0])
            call, more = abi.waiting["sendto" if name == "sendmsg" else "recvfrom"], (flags, 0, 0)
        case _:
            return []
    if name.startswith("recv"):
        if flags & (_MSG_WAITALL | _MSG_PEEK | _MSG_TRUNC) != _MSG_WAITALL or not _takes_all(task, fd, flags):
            return []
    elif name.startswith("read"):
        if not _gives_all(task, fd):
            return []
    elif not _takes_all(task, fd, flags):
        return []
    steps: list[Step] = []
    for base, length in pieces:
        if length > done:
            steps.append((call, (fd, base + done, length - done, *more), length - done))
        done = max(0, done - length)
    return steps


def _takes_all(task: Task, fd: int, flags: int = 0, *, sockets_only: bool = False) -> bool:
    """Whether a call waits until a descriptor has taken all, or MSG_WAITALL has got all: pipes, streams, terminals.

    sendfile(2) does so for sockets only: a pipe gets what there is room for. Each call with MSG_ZEROCOPY is answered
    by a completion, so there may not be more of them than the program has made.
    """
    try:
        with descriptor.copied(task.tgid, fd) as copy:
            if flags & (_MSG_DONTWAIT | _MSG_ZEROCOPY) or fcntl.fcntl(copy, fcntl.F_GETFL) & os.O_NONBLOCK:
                return False
            mode = os.fstat(copy).st_mode
            if stat.S_ISSOCK(mode):
                return descriptor.socket_option(copy, descriptor.SO_TYPE)[0] == descriptor.SOCK_STREAM
            return not sockets_only and (stat.S_ISFIFO(mode) or os.isatty(copy))
    except OSError:
        return False


def _gives_all(task: Task, fd: int) -> bool:
    """Whether a read of a descriptor comes short only by a signal (drivers/char/mem.c, drivers/char/random.c)."""
    try:
        with descriptor.copied(task.tgid, fd) as copy:
            what = os.fstat(copy)
    except OSError:
        return False
    return stat.S_ISCHR(what.st_mode) and os.major(what.st_rdev) == _MEMORY_DEVICES


def _vector(task: Task, registers: Registers, address: int, count: int) -> list[tuple[int, int]]:
    """Address and length of each struct iovec."""
    layout = "=QQ" if registers.abi.word == 8 else "=II"
    block = _read(task, address, struct.calcsize(layout) * min(count, _MOST_PIECES))
    return [] if block is None else list(struct.iter_unpack(layout, block))


def _message(task: Task, registers: Registers, address: int) -> list[tuple[int, int]]:
    """The vector of a struct msghdr. None of one with control data: it marks places that a recv would pass over."""
    block = _read(task, address, 5 * registers.abi.word)
    if block is None:
        return []
    _, _, vector, count, control = struct.unpack("=5Q" if registers.abi.word == 8 else "=5I", block)
    sends = registers.abi.waiting_name(registers.number) == "sendmsg"  # with the first bytes
    return _vector(task, registers, vector, count) if sends or not control else []


def _read(task: Task, address: int, length: int) -> bytes | None:
    memory_fd = task.space.state.memory_fd
    try:
        block = b"" if memory_fd == -1 else os.pread(memory_fd, length, address)
    except (OSError, OverflowError):
        return None
    return block if len(block) == length else None

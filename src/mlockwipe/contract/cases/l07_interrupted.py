# SPDX-License-Identifier: MIT
"""L7: no call comes back with EINTR that would not do so by itself."""

import ctypes
import errno
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.program import PAGE, PRIVATE, READ_WRITE, SIZE, Program, refused
from mlockwipe.contract.task_states import wait_until
from mlockwipe.linux import mm, mman
from mlockwipe.linux.libc import function

ROUNDS = 300

_long = ctypes.c_long
_syscall = function("syscall", _long, *([_long] * 7), sleeps=True)


# A timer that fires all the time


def _catch_alarms() -> None:
    """By a handler that does not restart calls."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)


def _signal_time() -> float:
    """Seconds that a signal takes here, with whatever watches this process. A timer that is faster leaves no time
    for anything else, on an emulated processor above all."""

    def once() -> float:
        start = time.perf_counter()
        signal.raise_signal(signal.SIGALRM)
        return time.perf_counter() - start

    return min(once() for _ in range(10))


def _under_timer(program: Program, *calls: Callable[[], object]) -> None:
    """Each of `calls` again and again under a timer of 300 us, or slower where signals are."""
    _catch_alarms()
    interval = max(300e-6, 4 * _signal_time())
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    interrupted = [sum(refused(call) == "EINTR" for _ in range(ROUNDS)) for call in calls]
    signal.setitimer(signal.ITIMER_REAL, 0)
    program.check("how often each call was interrupted", interrupted, [0] * len(calls))


@case("L7", "timer-lock", KEPT, "mlock, mlock2, mlockall and their opposites under a fast timer", shows=False)
def timer_lock(program: Program) -> None:
    at = mm.mmap(0, PAGE, READ_WRITE, PRIVATE)
    mm.mlock(at, PAGE)  # the first lock is a case of its own
    _under_timer(
        program,
        lambda: mm.mlock(at, PAGE),
        lambda: mm.munlock(at, PAGE),
        lambda: mm.mlock2(at, PAGE, mman.MLOCK_ONFAULT),
        lambda: mm.mlockall(mman.MCL_FUTURE),
        mm.munlockall,
    )


@case("L7", "timer-unmap", KEPT, "MAP_LOCKED, MAP_FIXED, mremap and munmap under a fast timer", shows=False)
def timer_unmap(program: Program) -> None:
    def locked(address: int = 0, flags: int = 0) -> int:
        return mm.mmap(address, 4 * PAGE, READ_WRITE, PRIVATE | mman.MAP_LOCKED | flags)

    at = locked()
    _under_timer(
        program,
        lambda: mm.munmap(locked(), 4 * PAGE),
        lambda: locked(at, mman.MAP_FIXED),
        lambda: mm.mremap(locked(at, mman.MAP_FIXED), 4 * PAGE, 2 * PAGE),
    )


# The first lock of a process, under the timer: in many children, for each has a first lock of its own


@case("L7", "timer-first-lock", KEPT, "a process's first mlock under a fast timer", shows=False)
def timer_first_lock(program: Program) -> None:
    read_end, write_end = os.pipe()

    def measure() -> None:
        mm.mlock(mm.mmap(0, PAGE, READ_WRITE, PRIVATE), PAGE)
        _catch_alarms()
        os.write(write_end, struct.pack("d", _signal_time()))

    program.reap(program.fork(measure))
    interval = max(50e-6, 4 * struct.unpack("d", os.read(read_end, 8))[0])

    def body() -> None:
        at = mm.mmap(0, PAGE, READ_WRITE, PRIVATE)
        _catch_alarms()
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        try:
            mm.mlock(at, PAGE)
        except InterruptedError:
            program.fail("mlock was interrupted")
        signal.setitimer(signal.ITIMER_REAL, 0)

    for _ in range(10):
        program.reap(program.fork(body))


# Calls that sleep in another thread


class Sleeper:
    """A call that sleeps until `wake`, or by itself for a time when that is None, and must then return `expected`."""

    def __init__(self, call: Callable[[], int], wake: Callable[[], object] | None, expected: int) -> None:
        self.call = call
        self.wake = wake
        self.expected = expected


@case("L7", "asleep", KEPT, "threads sleep in every kind of call; another locks, forks, unmaps", shows=False)
def asleep(program: Program) -> None:
    results: dict[str, object] = {}

    def sleep(name: str, sleeper: Sleeper) -> None:
        value = sleeper.call()
        results[name] = errno.errorcode[ctypes.get_errno()] if value == -1 else value

    sleepers = {make.__name__[1:]: make() for make in SLEEPERS}
    threads = [threading.Thread(target=sleep, args=item, daemon=True) for item in sleepers.items()]
    for thread in threads:
        thread.start()
        wait_until("S", os.getpid(), thread.native_id)
    for _ in range(5):
        at = program.secret()
        mm.munlock(at, PAGE)
        os.waitpid(program.fork(lambda: None), 0)
        mm.munmap(at, SIZE)
    early = {name: result for name, result in results.items() if sleepers[name].wake is not None}
    program.check("calls that returned too early", early, {})
    for sleeper in sleepers.values():
        if sleeper.wake is not None:
            sleeper.wake()
    for thread in threads:
        thread.join()
    expected = {name: sleeper.expected for name, sleeper in sleepers.items()}
    program.check("what the calls returned", results, expected)


def _read() -> Sleeper:
    read_end, write_end = os.pipe()
    buffer = ctypes.create_string_buffer(8)
    return Sleeper(lambda: _call(0, read_end, ctypes.addressof(buffer), 1), lambda: os.write(write_end, b"."), 1)


def _epoll_wait() -> Sleeper:
    read_end, write_end = os.pipe()
    epoll = select.epoll()
    epoll.register(read_end, select.EPOLLIN)
    events = ctypes.create_string_buffer(12)
    epoll_wait = function(
        "epoll_wait", ctypes.c_int, *[ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int], sleeps=True
    )
    return Sleeper(lambda: epoll_wait(epoll.fileno(), events, 1, -1), lambda: os.write(write_end, b"."), 1)


def _poll() -> Sleeper:
    read_end, write_end = os.pipe()
    pollfd = ctypes.create_string_buffer(struct.pack("=ihh", read_end, select.POLLIN, 0), 8)
    return Sleeper(lambda: _call(7, ctypes.addressof(pollfd), 1, -1), lambda: os.write(write_end, b"."), 1)


def _nanosleep() -> Sleeper:
    span = ctypes.create_string_buffer(struct.pack("=qq", 0, 300_000_000), 16)

    def call() -> int:
        start = time.monotonic_ns()
        result = _call(35, ctypes.addressof(span), 0)
        return result if time.monotonic_ns() - start >= 300_000_000 else -2

    return Sleeper(call, None, 0)


def _futex() -> Sleeper:
    at, private = (
        mm.mmap(0, PAGE, READ_WRITE, PRIVATE),
        128,
    )  # include/uapi/linux/futex.h: FUTEX_PRIVATE_FLAG
    return Sleeper(lambda: _call(202, at, private, 0, 0), lambda: _call(202, at, private | 1, 1), 0)


def _semop() -> Sleeper:
    semget, semop, semctl = 64, 65, 66
    semaphore = _call(semget, mm.IPC_PRIVATE, 1, 0o600)
    down = ctypes.create_string_buffer(struct.pack("=Hhh", 0, -1, 0), 6)
    up = ctypes.create_string_buffer(struct.pack("=Hhh", 0, 1, 0), 6)

    def call() -> int:
        try:
            return _call(semop, semaphore, ctypes.addressof(down), 1)
        finally:
            number = ctypes.get_errno()
            _call(semctl, semaphore, 0, mm.IPC_RMID)
            ctypes.set_errno(number)

    return Sleeper(call, lambda: _call(semop, semaphore, ctypes.addressof(up), 1), 0)


def _msgrcv() -> Sleeper:
    msgget, msgsnd, msgrcv, msgctl = 68, 69, 70, 71
    queue = _call(msgget, mm.IPC_PRIVATE, 0o600)
    sent = ctypes.create_string_buffer(struct.pack("=q8s", 1, b"message."), 16)
    received = ctypes.create_string_buffer(16)

    def call() -> int:
        try:
            return _call(msgrcv, queue, ctypes.addressof(received), 8, 0, 0)
        finally:
            number = ctypes.get_errno()
            _call(msgctl, queue, mm.IPC_RMID)
            ctypes.set_errno(number)

    return Sleeper(call, lambda: _call(msgsnd, queue, ctypes.addressof(sent), 8, 0), 8)


def _sigtimedwait() -> Sleeper:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    mask = ctypes.c_uint64(1 << (signal.SIGUSR1 - 1))
    return Sleeper(
        lambda: _call(128, ctypes.addressof(mask), 0, 0, 8),
        lambda: os.kill(os.getpid(), signal.SIGUSR1),
        signal.SIGUSR1,
    )


def _accept() -> Sleeper:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"\0mlockwipe-%d" % os.getpid())
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    return Sleeper(
        lambda: min(_call(43, listener.fileno(), 0, 0), 0), lambda: client.connect(listener.getsockname()), 0
    )


def _flock() -> Sleeper:
    import fcntl

    first, second = (os.open("file", os.O_RDWR | os.O_CREAT) for _ in range(2))
    fcntl.flock(first, fcntl.LOCK_EX)
    return Sleeper(lambda: _call(73, second, fcntl.LOCK_EX), lambda: fcntl.flock(first, fcntl.LOCK_UN), 0)


def _wait4() -> Sleeper:
    # Its own child alone: the other thread's children are waited for by that thread.
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    return Sleeper(lambda: _call(61, pid, 0, 0, 0) - pid, lambda: os.write(write_end, b"."), 0)


def _call(number: int, *arguments: int) -> int:
    result: int = _syscall(number, *arguments, *[0] * (6 - len(arguments)))
    return result


SLEEPERS = (
    _read,
    _epoll_wait,
    _poll,
    _nanosleep,
    _futex,
    _semop,
    _msgrcv,
    _sigtimedwait,
    _accept,
    _flock,
    _wait4,
)

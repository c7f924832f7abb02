# SPDX-License-Identifier: MIT
"""Steps that cases of several rows take.

Every program of a case imports what its own file does, so what few need is imported where it is needed.
"""

import os
import signal
from collections.abc import Callable

from mlockwipe.contract.program import PAGE, PAGES, SIZE, Program, Signal, refused
from mlockwipe.contract.task_states import wait_until
from mlockwipe.linux import mm

TYPE_CHECKING = False  # typing's own constant costs the import of typing
if TYPE_CHECKING:
    from mlockwipe.linux.io_uring import Ring

# To lock


def grown_heap(size: int = SIZE) -> int:
    """The address of the first whole page after what was the heap's end, with `size` bytes of heap behind it."""
    at = -(-mm.brk() // PAGE) * PAGE
    if mm.brk(at + size) != at + size:
        raise RuntimeError("the heap can't grow")
    return at


def lock_all(program: Program, flags: int) -> None:
    """mlockall, or the end of the case: an interpreter as a whole is more than an ordinary user may lock."""
    if error := refused(mm.mlockall, flags):
        program.cannot(f"mlockall is refused with {error}: it needs `ulimit -l` above the size of an interpreter")


def limit_locking(pages: int) -> None:
    """Let this process lock so many pages and no more, whoever runs it."""
    import resource

    from mlockwipe.linux import capability

    resource.setrlimit(resource.RLIMIT_MEMLOCK, (pages * PAGE, pages * PAGE))
    capability.drop(capability.CAP_IPC_LOCK)


def seal(program: Program, address: int, length: int) -> None:
    """mseal, or the end of the case."""
    if refused(mm.mseal, address, length) == "ENOSYS":
        program.cannot("this kernel has no mseal (Linux 6.10)")


def write_protected(program: Program, address: int, length: int) -> None:
    """Have a userfaultfd that nobody serves protect a range from being written, or end the case."""
    import fcntl

    from mlockwipe.linux import userfaultfd

    try:
        fd = userfaultfd.open_own()
        registration = userfaultfd.registration(address, length, userfaultfd.MODE_WRITE_PROTECT)
        fcntl.ioctl(fd, userfaultfd.REGISTER, registration)
    except OSError as error:
        program.cannot(f"this kernel has no userfaultfd that protects pages: {error.strerror} (Linux 5.7)")
    protection = userfaultfd.write_protection(address, length, protect=True)
    fcntl.ioctl(fd, userfaultfd.WRITE_PROTECT, protection)


# To be refused


def fails(
    program: Program,
    address: int,
    error: str,
    call: Callable[..., object],
    *arguments: int,
    pages: int = PAGES,
) -> None:
    """The pages at `address` are intact after a call of `arguments` that fails with `error`."""
    program.show(address, pages)
    program.check("the call", refused(call, *arguments), error)
    program.look()
    program.intact("the secret", address, pages)


# To die


def no_core() -> None:
    """A core dump would copy the secret to a file, and takes long."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def killed(
    program: Program,
    activity: Callable[[int], object],
    wait: Callable[[int], object] = lambda pid: None,
    pages: int = PAGES,
    status: int | None = -signal.SIGKILL,
) -> None:
    """A child makes a secret and does `activity(address)`; its parent does `wait(pid)`, kills it and reaps it."""
    ready = Signal()

    def body() -> None:
        at = program.secret(pages)
        program.show(at, pages)
        ready.give()
        activity(at)

    pid = program.fork(body)
    ready.wait()
    wait(pid)
    os.kill(pid, signal.SIGKILL)
    program.reap(pid, status)
    ready.close()


def release_early(pid: int) -> str | None:
    """Kill a process and take its memory back at once; the error, if that is refused."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    error = refused(mm.process_mrelease, pidfd)
    os.close(pidfd)
    return error


# To do something else meanwhile


def spin(_: int = 0) -> None:
    while True:
        pass


def sleeping_threads(count: int) -> None:
    """Start threads that sleep, and return when they do."""
    import threading

    for _ in range(count):
        thread = threading.Thread(target=sleep_in_lock, daemon=True)
        thread.start()
        wait_until("S", os.getpid(), thread.native_id)


def sleep_in_lock() -> None:
    import threading

    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def ring_with_buffers(program: Program, at: int) -> "Ring":
    """A ring that holds the SIZE bytes at an address as registered buffers, or the end of the case."""
    ring = open_ring(program, 1)
    try:
        ring.register(at, SIZE)
    except OSError as error:
        program.cannot(f"buffers can't be registered: {error.strerror}")
    return ring


def open_ring(program: Program, entries: int) -> "Ring":
    """A ring, or the end of the case."""
    from mlockwipe.linux.io_uring import Ring

    try:
        return Ring(entries)
    except PermissionError:
        program.cannot("io_uring is switched off: kernel.io_uring_disabled, or a seccomp filter")
    except OSError as error:
        program.cannot(f"this kernel has no io_uring ({error.strerror})")

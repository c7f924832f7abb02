# SPDX-License-Identifier: MIT
"""L7: robust mutexes, and the word of a thread that ends: the kernel writes to both when their owner is gone."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.program import PAGE, Program
from mlockwipe.contract.steps import lock_all
from mlockwipe.linux import mm, mman
from mlockwipe.linux.libc import checked


def _robust_mutex() -> int:
    """The address of a robust mutex that processes share."""
    at = mm.mmap(0, PAGE, mman.PROT_READ | mman.PROT_WRITE, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    attributes = ctypes.create_string_buffer(16)
    libc = ctypes.CDLL(None)
    libc.pthread_mutexattr_init(attributes)
    libc.pthread_mutexattr_setpshared(attributes, 1)
    libc.pthread_mutexattr_setrobust(attributes, 1)
    libc.pthread_mutex_init(ctypes.c_void_p(at), attributes)
    return at


def _owner_died(program: Program, lock: Callable[[], object], end: Callable[[], object]) -> None:
    import errno

    mutex = ctypes.c_void_p(_robust_mutex())
    libc = ctypes.CDLL(None)

    def body() -> None:
        lock()
        libc.pthread_mutex_lock(mutex)
        end()

    os.waitpid(program.fork(body), 0)
    program.check("the next owner is told", libc.pthread_mutex_trylock(mutex), errno.EOWNERDEAD)


def _lock_list_head() -> None:
    """Lock the page in which the C library keeps the list of this thread's robust mutexes."""
    from mlockwipe.linux.libc import syscall

    head, length = ctypes.c_void_p(), ctypes.c_size_t()
    get_robust_list = 274
    checked(
        syscall(get_robust_list, 0, ctypes.addressof(head), ctypes.addressof(length), 0, 0, 0),
        "get_robust_list()",
    )
    mm.mlock(head.value or 0, length.value)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@case(
    "L7",
    "robust-mutex-exit",
    KEPT,
    "the owner of a robust mutex exits, with the list of its mutexes locked",
    shows=False,
)
def robust_mutex_exit(program: Program) -> None:
    _owner_died(program, _lock_list_head, lambda: os._exit(0))


@case(
    "L7",
    "robust-mutex-sigkill",
    KEPT,
    "the owner of a robust mutex is killed, with the list locked",
    shows=False,
)
def robust_mutex_sigkill(program: Program) -> None:
    _owner_died(program, _lock_list_head, _kill)


@case(
    "L7",
    "robust-mutex-exec",
    KEPT,
    "the owner of a robust mutex replaces itself, with the list locked",
    shows=False,
)
def robust_mutex_exec(program: Program) -> None:
    _owner_died(program, _lock_list_head, lambda: os.execv("/bin/true", ["true"]))


@case("L7", "robust-mutex-lockall", KEPT, "the owner of a robust mutex is killed after mlockall", shows=False)
def robust_mutex_lockall(program: Program) -> None:
    _owner_died(program, lambda: lock_all(program, mman.MCL_CURRENT | mman.MCL_FUTURE), _kill)


@case(
    "L7",
    "thread-end-word",
    KEPT,
    "CLONE_CHILD_CLEARTID: a thread that ends clears its word, which is locked",
    shows=False,
)
def thread_end_word(program: Program) -> None:
    # pthread_join waits for that word: it would sleep for ever, or a whole page of the C library's would be
    # gone.
    for _ in range(5):
        thread = threading.Thread(target=_lock_list_head)
        thread.start()
        thread.join()
        program.check("the thread is gone", thread.is_alive(), False)

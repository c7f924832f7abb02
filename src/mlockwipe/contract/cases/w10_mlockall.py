# SPDX-License-Identifier: MIT
"""W10: mlockall, of what is mapped now and of what will be."""

import ctypes
import os
import signal
import threading

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import read
from mlockwipe.contract.foreign_abi import MLOCKALL, i386
from mlockwipe.contract.pattern import paint
from mlockwipe.contract.program import (
    PAGE,
    PAGES,
    PRIVATE,
    READ_WRITE,
    SIZE,
    Program,
    refused,
    sleep_for_ever,
)
from mlockwipe.contract.steps import grown_heap, lock_all, sleeping_threads
from mlockwipe.linux import mm, mman
from mlockwipe.linux.libc import function

HALF = PAGES // 2


@case("W10", "current-unmap", WIPED, "MCL_CURRENT: a range mapped before it is unmapped")
def current_unmap(program: Program) -> None:
    at = program.plain()
    lock_all(program, mman.MCL_CURRENT)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W10", "current-exit", WIPED, "MCL_CURRENT: a range mapped before it, when the program ends")
def current_exit(program: Program) -> None:
    def body() -> None:
        at = program.plain()
        lock_all(program, mman.MCL_CURRENT)
        program.show(at)

    program.reap(program.fork(body))


@case("W10", "current-sigkill", WIPED, "MCL_CURRENT | MCL_FUTURE with four threads, SIGKILL")
def current_sigkill(program: Program) -> None:
    def body() -> None:
        sleeping_threads(3)
        lock_all(program, mman.MCL_CURRENT | mman.MCL_FUTURE)
        program.show(program.plain())
        os.kill(os.getpid(), signal.SIGKILL)

    program.reap(program.fork(body), None)


@case("W10", "current-stack", WIPED, "MCL_CURRENT: pages by which the stack grows later")
def current_stack(program: Program) -> None:
    def body() -> None:
        lock_all(program, mman.MCL_CURRENT)
        _show_stack(program, _stack_start())

    program.reap(program.fork(body))


@case("W10", "future-unmap", WIPED, "MCL_FUTURE: a range mapped after it is unmapped")
def future_unmap(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    at = program.plain()
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W10", "future-exit", WIPED, "MCL_FUTURE: when the program ends")
def future_exit(program: Program) -> None:
    def body() -> None:
        mm.mlockall(mman.MCL_FUTURE)
        program.show(program.plain())

    program.reap(program.fork(body))


@case("W10", "future-replaced", WIPED, "MCL_FUTURE: MAP_FIXED over it, and the new mapping in its turn")
def future_replaced(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    at = program.plain()
    program.show(at)
    mm.mmap(at, SIZE, READ_WRITE, PRIVATE | mman.MAP_FIXED)
    program.look()
    paint(at, PAGES)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W10", "future-inaccessible-first", WIPED, "MCL_FUTURE: mapped inaccessible, made writable later")
def future_inaccessible_first(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    at = mm.mmap(0, SIZE, mman.PROT_NONE, PRIVATE)
    mm.mprotect(at, SIZE, READ_WRITE)
    paint(at, PAGES)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


@case("W10", "future-moved", WIPED, "MCL_FUTURE: grown by mremap")
def future_moved(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    at = mm.mremap(program.plain(HALF), HALF * PAGE, SIZE, mman.MREMAP_MAYMOVE)
    paint(at, PAGES)
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()


def _show_heap(program: Program) -> None:
    at = grown_heap()
    paint(at, PAGES)
    program.show(at)
    mm.brk(at)
    program.look()


@case("W10", "future-heap", WIPED, "MCL_FUTURE: the heap grows, and shrinks")
def future_heap(program: Program) -> None:
    mm.mlockall(mman.MCL_FUTURE)
    _show_heap(program)


@case("W10", "future-heap-exit", WIPED, "MCL_FUTURE: the heap grows, and the program ends")
def future_heap_exit(program: Program) -> None:
    def body() -> None:
        mm.mlockall(mman.MCL_FUTURE)
        at = grown_heap()
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))


@case("W10", "future-thread-stack", WIPED, "MCL_FUTURE: the stack of a thread")
def future_thread_stack(program: Program) -> None:
    shown = threading.Event()

    def thread() -> None:
        _show_own_stack(program)
        shown.set()
        sleep_for_ever()

    def body() -> None:
        mm.mlockall(mman.MCL_FUTURE)
        threading.stack_size(64 * PAGE)
        threading.Thread(target=thread, daemon=True).start()
        shown.wait()

    program.reap(program.fork(body))


def _show_own_stack(program: Program) -> None:
    """Show the far end of the calling thread's stack, which nothing has used yet."""
    libc_size = ctypes.c_size_t()
    low = ctypes.c_void_p()
    attributes = ctypes.create_string_buffer(64)
    thread = function("pthread_self", ctypes.c_ulong)()
    function("pthread_getattr_np", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(thread, attributes)
    function("pthread_attr_getstack", ctypes.c_int, *[ctypes.c_void_p] * 3)(
        attributes, ctypes.addressof(low), ctypes.addressof(libc_size)
    )
    at = low.value or 0
    paint(at, PAGES)
    program.show(at)


def _stack_start() -> int:
    return next(
        int(line.partition("-")[0], 16) for line in read("/proc/self/maps").splitlines() if line.endswith("[stack]")
    )


def _show_stack(program: Program, start: int) -> None:
    """Let the stack grow, and show its new pages: the kernel grows it at a write just below it."""
    at = start - SIZE
    paint(at, PAGES)
    program.show(at)


@case("W10", "stack-growth", WIPED, "mlock of the stack's end: the pages by which it then grows are locked too")
def stack_growth(program: Program) -> None:
    def body() -> None:
        start = _stack_start()
        mm.mlock(start, PAGE)
        _show_stack(program, start)

    program.reap(program.fork(body))


def _mapped_again(program: Program, unlocked: int) -> None:
    """Under MCL_FUTURE memory that is not locked is unmapped, and what is mapped in its place is."""
    mm.munmap(unlocked, SIZE)
    at = mm.mmap(unlocked, SIZE, READ_WRITE, PRIVATE)
    program.check("the address", at, unlocked)
    paint(at, PAGES)
    program.show(at)


@case("W10", "future-where-unlocked-was", WIPED, "MCL_FUTURE: mapped where something from before was, then exit")
def future_where_unlocked_was(program: Program) -> None:
    def body() -> None:
        at = program.plain()
        lock_all(program, mman.MCL_FUTURE)
        _mapped_again(program, at)

    program.reap(program.fork(body))


@case("W10", "future-where-munlocked-was", WIPED, "MCL_FUTURE: mapped where something munlocked was, then exit")
def future_where_munlocked_was(program: Program) -> None:
    def body() -> None:
        lock_all(program, mman.MCL_FUTURE)
        at = program.plain()
        mm.munlock(at, SIZE)
        _mapped_again(program, at)

    program.reap(program.fork(body))


@case("W10", "future-heap-where-munlocked-was", WIPED, "MCL_FUTURE: the heap shrinks by what is munlocked, and grows")
def future_heap_where_munlocked_was(program: Program) -> None:
    def body() -> None:
        lock_all(program, mman.MCL_FUTURE)
        at = grown_heap()
        mm.munlock(at, SIZE)
        mm.brk(at)
        program.check("the break", mm.brk(at + SIZE), at + SIZE)
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))


@case(
    "W10",
    "future-where-a-hole-was",
    WIPED,
    "MCL_FUTURE: munlock fails at a hole, something is mapped there, then exit",
)
def future_where_a_hole_was(program: Program) -> None:
    def body() -> None:
        lock_all(program, mman.MCL_FUTURE)
        start = mm.mmap(0, 2 * SIZE, READ_WRITE, PRIVATE)
        mm.munmap(start + SIZE, SIZE)
        program.check("munlock", refused(mm.munlock, start, 2 * SIZE), "ENOMEM")
        at = mm.mmap(start + SIZE, SIZE, READ_WRITE, PRIVATE)
        program.check("the address", at, start + SIZE)
        paint(at, PAGES)
        program.show(at)

    program.reap(program.fork(body))


@case("W10", "i386-future", WIPED, "an i386 mlockall(MCL_FUTURE)")
def i386_future(program: Program) -> None:
    i386(program)(MLOCKALL, mman.MCL_FUTURE)
    at = program.plain()
    program.show(at)
    mm.munmap(at, SIZE)
    program.look()

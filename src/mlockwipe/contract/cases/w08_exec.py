# SPDX-License-Identifier: MIT
"""W8: the program replaces itself by another. The pages are judged while the new program runs."""

import ctypes
import os
import signal
import threading

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.files import write
from mlockwipe.contract.foreign_abi import EXECVE, LOW, i386
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, Program, sleep_for_ever
from mlockwipe.contract.steps import sleeping_threads
from mlockwipe.linux import mm


@case("W8", "program", WIPED, "the program itself, of one thread")
def program_itself(program: Program) -> None:
    program.show(program.secret())
    program.exec_looker()


@case("W8", "child", WIPED, "a child of one thread")
def child(program: Program) -> None:
    def body() -> None:
        program.show(program.secret())
        program.exec_looker()

    program.reap(program.fork(body))


@case("W8", "leader-of-four", WIPED, "the first of four threads")
def leader_of_four(program: Program) -> None:
    program.show(program.secret())
    sleeping_threads(3)
    program.exec_looker()


@case(
    "W8",
    "thread-of-four",
    WIPED,
    "another than the first of four threads: it takes over the leader's number",
)
def thread_of_four(program: Program) -> None:
    program.show(program.secret())
    sleeping_threads(2)
    threading.Thread(target=program.exec_looker).start()
    sleep_for_ever()


@case(
    "W8",
    "threads-of-busy-child",
    WIPED,
    "a thread of a child whose other threads make system calls all the time",
)
def threads_of_busy_child(program: Program) -> None:
    def busy() -> None:
        while True:
            os.sched_yield()

    def body() -> None:
        program.show(program.secret())
        for _ in range(2):
            threading.Thread(target=busy, daemon=True).start()
        threading.Thread(target=program.exec_looker).start()
        busy()

    program.reap(program.fork(body))


@case("W8", "after-failures", WIPED, "found at the third place, as a PATH search goes")
def after_failures(program: Program) -> None:
    at = program.secret()
    for place in ("/nonexistent/program", "/etc/passwd"):
        try:
            os.execv(place, ["program"])
        except OSError:
            program.intact(f"the secret after {place}", at)
    program.show(at)
    program.exec_looker()


@case("W8", "script", WIPED, "a script, which the kernel gives to its interpreter")
def script(program: Program) -> None:
    program.show(program.secret())
    write("script", f"#!/bin/sh\n{program.looker()}\n".encode(), 0o700)
    os.execv("./script", ["script"])


@case("W8", "twice", WIPED, "what the second program locked goes when it executes a third")
def twice(program: Program) -> None:
    program.secret()
    program.exec_again(_second)


def _second(program: Program) -> None:
    program.show(program.secret())
    program.exec_looker()


@case("W8", "dies-in-exec", WIPED, "the new program can't be loaded and the old is gone already: SIGSEGV")
def dies_in_exec(program: Program) -> None:
    write("broken", _unloadable(), 0o700)

    def release(_: int) -> None:
        os.execv("./broken", ["broken"])

    program.dies(release, -signal.SIGSEGV)


def _unloadable() -> bytes:
    """An ELF program whose one segment belongs where no program can be: found out after the point of no return."""
    import struct

    where = 0xFFFF_8000_0000_0000
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, where, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, where, where, PAGE, PAGE, PAGE)
    return (header + segment).ljust(PAGES * PAGE, b"\0")


@case("W8", "i386-exec", WIPED, "an i386 execve replaces the program")
def i386_exec(program: Program) -> None:
    call = i386(program)
    program.show(program.secret())
    argv = [b"/bin/sh", b"-c", program.looker().encode()]
    strings = mm.mmap(0, 4 * PAGE, READ_WRITE, PRIVATE | LOW)
    vector = mm.mmap(0, PAGE, READ_WRITE, PRIVATE | LOW)
    pointers = (ctypes.c_uint32 * (len(argv) + 1)).from_address(vector)
    end = strings
    for index, argument in enumerate(argv):
        ctypes.memmove(end, argument + b"\0", len(argument) + 1)
        pointers[index] = end
        end += len(argument) + 1
    call(EXECVE, strings, vector, 0)

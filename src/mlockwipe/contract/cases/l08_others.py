# SPDX-License-Identifier: MIT
"""L8: what a program has given up nobody keeps for it, and nobody else runs its code."""

import ctypes
import os
import signal
import struct
import time

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.files import names, read
from mlockwipe.contract.machine_code import counts_strangers
from mlockwipe.contract.program import PAGE, PRIVATE, READ_WRITE, Program, Signal
from mlockwipe.linux import kcmp, mm, mman

_NOBODY = 65534
_MANY = 512  # pages, which the kernel clears faster by a task in the memory than through /proc


def _give_up_root() -> None:
    """Nothing is given up by an ordinary user: he has got nothing."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _strangers(pid: int) -> list[int]:
    """The processes that share the memory of another."""
    found = []
    for name in names("/proc"):
        if name.isdigit() and int(name) not in (pid, os.getpid()):
            try:
                if kcmp.same_address_space(pid, int(name)):
                    found.append(int(name))
            except OSError:
                continue
    return found


def _field(pid: int, name: str) -> str:
    return read(f"/proc/{pid}/status").partition(f"\n{name}:")[2].split()[0]


@case("L8", "given-up", KEPT, "a root program becomes nobody: nobody in its memory has a capability", shows=False)
def given_up(program: Program) -> None:
    ready, done = Signal(), Signal()

    def body() -> None:
        program.secret()
        _give_up_root()
        ready.give()
        done.wait()

    pid = program.fork(body)
    ready.wait()
    strangers = _strangers(pid)
    program.check("capabilities", {_field(stranger, "CapPrm").strip("0") for stranger in strangers} - {""}, set())
    program.check("under no filter", [pid for pid in strangers if _field(pid, "Seccomp") != "2"], [])
    done.give()
    program.reap(pid)


def _exchange_vdso(counter: int) -> None:
    """Have code that counts at the place of the vdso, wherever it is entered, and at any other that a task in this
    memory may be pointed at."""
    for line in read("/proc/self/maps").splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            mm.mmap(start, end - start, READ_WRITE | mman.PROT_EXEC, PRIVATE | mman.MAP_FIXED)
            code = counts_strangers(os.getpid(), counter)
            ctypes.memmove(start, b"\x90" * (end - start - len(code)) + code, end - start)


@case("L8", "exchanged-vdso", KEPT, "the code where helpers stand is exchanged: they run none of it", shows=False)
def exchanged_vdso(program: Program) -> None:
    counter = mm.mmap(0, PAGE, READ_WRITE, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    ready, go_on, unmapped, done = Signal(), Signal(), Signal(), Signal()

    def body() -> None:
        at = program.secret(_MANY)
        _give_up_root()
        _exchange_vdso(counter)
        ready.give()
        go_on.wait()
        mm.munmap(at, _MANY * PAGE)
        program.secret(_MANY)
        unmapped.give()
        done.wait()

    pid = program.fork(body)
    ready.wait()
    for stranger in _strangers(pid):
        for number in (signal.SIGSTOP, signal.SIGCONT):
            os.kill(stranger, number)
    time.sleep(0.05)  # for one that was woken to run
    go_on.give()
    unmapped.wait()
    done.give()
    program.reap(pid)
    program.check("how often it was run by another task", struct.unpack("I", ctypes.string_at(counter, 4))[0], 0)

# SPDX-License-Identifier: MIT
"""W9: memory under any protection. libsodium keeps keys inaccessible whenever they are not in use."""

import os
import signal
from collections.abc import Callable

from mlockwipe.contract.case import WIPED, case
from mlockwipe.contract.program import PAGE, PAGES, READ_WRITE, SIZE, Program, refused
from mlockwipe.contract.steps import killed, spin
from mlockwipe.linux import mm, mman

HALF = PAGES // 2

_PROTECTIONS = {
    "inaccessible": mman.PROT_NONE,
    "read-only": mman.PROT_READ,
}


def _at_exit(prot: int) -> Callable[[Program], None]:
    def body(program: Program) -> None:
        program.dies(lambda at: mm.mprotect(at, SIZE, prot))

    return body


def _at_unmap(prot: int) -> Callable[[Program], None]:
    def body(program: Program) -> None:
        at = program.secret()
        program.show(at)
        mm.mprotect(at, SIZE, prot)
        mm.munmap(at, SIZE)
        program.look()

    return body


def _at_part_unmap(prot: int) -> Callable[[Program], None]:
    def body(program: Program) -> None:
        at = program.secret()
        program.show(at, HALF)
        mm.mprotect(at, SIZE, prot)
        mm.munmap(at, HALF * PAGE)
        program.look()
        mm.mprotect(at + HALF * PAGE, HALF * PAGE, READ_WRITE)
        program.intact("the other half", at + HALF * PAGE, HALF)

    return body


def _at_exec(prot: int) -> Callable[[Program], None]:
    def body(program: Program) -> None:
        at = program.secret()
        program.show(at)
        mm.mprotect(at, SIZE, prot)
        program.exec_looker()

    return body


def _at_kill(prot: int) -> Callable[[Program], None]:
    def activity(at: int) -> None:
        mm.mprotect(at, SIZE, prot)
        spin()

    return lambda program: killed(program, activity)


for _name, _prot in _PROTECTIONS.items():
    case("W9", f"{_name}-exit", WIPED, f"{_name} when the program ends")(_at_exit(_prot))
    case("W9", f"{_name}-unmap", WIPED, f"{_name} when it is unmapped")(_at_unmap(_prot))
    case("W9", f"{_name}-exec", WIPED, f"{_name} when the program replaces itself")(_at_exec(_prot))
    case("W9", f"{_name}-sigkill", WIPED, f"{_name}, or about to be, when the program is killed")(_at_kill(_prot))
case("W9", "inaccessible-part", WIPED, "half of an inaccessible range is unmapped, the rest keeps every byte")(
    _at_part_unmap(mman.PROT_NONE)
)


@case(
    "W9",
    "guarded",
    WIPED,
    "between inaccessible guard pages, itself inaccessible at the end, as libsodium does",
)
def guarded(program: Program) -> None:
    def body() -> None:
        at = program.plain()
        mm.mprotect(at, PAGE, mman.PROT_NONE)
        mm.mprotect(at + SIZE - PAGE, PAGE, mman.PROT_NONE)
        secret, length = at + PAGE, SIZE - 2 * PAGE
        mm.mlock(secret, length)
        program.show(secret, PAGES - 2)
        mm.mprotect(secret, length, mman.PROT_NONE)

    program.reap(program.fork(body))


@case(
    "W9",
    "locked-while-inaccessible",
    WIPED,
    "mlock of inaccessible pages fails with ENOMEM, yet they are locked",
)
def locked_while_inaccessible(program: Program) -> None:
    def body() -> None:
        at = program.plain()
        program.show(at)
        mm.mprotect(at, SIZE, mman.PROT_NONE)
        program.check("mlock", refused(mm.mlock, at, SIZE), "ENOMEM")

    program.reap(program.fork(body))


@case("W9", "changing", WIPED, "every page under another protection, SIGKILL")
def changing(program: Program) -> None:
    def activity(at: int) -> None:
        for index in range(PAGES):
            mm.mprotect(at + index * PAGE, PAGE, (mman.PROT_NONE, mman.PROT_READ, READ_WRITE)[index % 3])
        os.kill(os.getpid(), signal.SIGKILL)

    program.dies(activity, -signal.SIGKILL)


@case("W9", "sealed-inaccessible", WIPED, "inaccessible, and sealed against any change of that")
def sealed_inaccessible(program: Program) -> None:
    def release(at: int) -> None:
        mm.mprotect(at, SIZE, mman.PROT_NONE)
        if refused(mm.mseal, at, SIZE) == "ENOSYS":
            program.cannot("this kernel has no mseal (Linux 6.10)")

    program.dies(release)

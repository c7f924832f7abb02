# SPDX-License-Identifier: MIT
"""The program of a case, and what it can say to its judge.

Two descriptors lead to the judge. The *witness* is the write end of a pipe: pages that are vmspliced into it
are kept by the pipe, the physical pages, whatever becomes of the mapping. The *channel* is a SOCK_SEQPACKET
socket that takes one JSON object a message, and that every process of the case inherits; it reads as closed
when all of them are gone:

    {"shown": 16}         so many pages were put into the witness
    {"look": 1}           judge the pages now; the program waits for the answer, which is one newline
    {"checked": 1}        a fact that must hold was looked at, and held
    {"damaged": "..."}    content that must stay is gone
    {"failed": "..."}     another fact does not hold
    {"cannot": "..."}     this machine can't run the case, and why

A descriptor of -1 is not there: a case runs without a judge, or with one that searches all memory instead.
"""

import ctypes
import errno
import os
import signal
import sys

from mlockwipe.contract.pattern import is_painted, mark, paint
from mlockwipe.linux import mm, mman

TYPE_CHECKING = False  # typing's own constant costs the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PAGE = mm.PAGE_SIZE
PAGES = 16  # what a pipe holds
SIZE = PAGES * PAGE

_SHELLS_CHANNEL = 9  # a shell takes no descriptor of two digits

READ_WRITE = mman.PROT_READ | mman.PROT_WRITE
PRIVATE = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS


class Program:
    """The program of one case."""

    def __init__(self, witness: int = -1, channel: int = -1) -> None:
        self.witness = witness
        self.channel = channel

    # Memory

    def plain(self, pages: int = PAGES, flags: int = 0) -> int:
        """The address of painted pages that are not locked. `flags`: more of mmap's MAP_* flags."""
        address = mm.mmap(0, pages * PAGE, READ_WRITE, PRIVATE | flags)
        paint(address, pages)
        return address

    def secret(self, pages: int = PAGES, flags: int = 0) -> int:
        """The address of painted pages that are locked."""
        address = mm.mmap(0, pages * PAGE, READ_WRITE, PRIVATE | flags)
        mm.mlock(address, pages * PAGE)
        paint(address, pages)
        return address

    def show(self, address: int, pages: int = PAGES) -> None:
        """Put pages before the witness.

        They must be readable at this moment, and this process must have written each of them since it was
        forked: a page that is still copy-on-write-shared is copied by the next write, for the pipe refers to
        it as well.
        """
        if self.witness >= 0:
            taken = mm.vmsplice(self.witness, address, pages * PAGE, mm.SPLICE_F_NONBLOCK)
            if taken < pages * PAGE:
                raise RuntimeError(f"the witness has no room for {pages} pages")
        else:
            mark(address, pages)
        self._tell("shown", pages)

    # What the judge hears

    def look(self) -> None:
        """Have the pages shown so far judged before this process does anything else."""
        if self.channel >= 0:
            self._tell("look", 1)
            os.read(self.channel, 1)

    def check(self, what: str, seen: object, expected: object) -> None:
        """State a fact that the program can see."""
        if seen == expected:
            self._tell("checked", 1)
        else:
            self.fail(f"{what}: {seen!r} instead of {expected!r}")

    def intact(self, what: str, address: int, pages: int = PAGES) -> None:
        """State that painted pages hold every byte."""
        self.unharmed(what, is_painted(address, pages))

    def unharmed(self, what: str, holds: bool) -> None:
        """State that content which must stay is there."""
        if holds:
            self._tell("checked", 1)
        else:
            self._tell("damaged", what)

    def fail(self, why: str) -> None:
        self._tell("failed", why)

    def cannot(self, why: str) -> "NoReturn":
        """End the case: this machine has not got what it needs."""
        self._tell("cannot", why)
        sys.exit()

    def _tell(self, kind: str, value: int | str) -> None:
        if self.channel < 0:
            return
        if isinstance(value, str):
            import json  # only a case that goes wrong pays for it

            value = json.dumps(value)
        os.write(self.channel, f'{{"{kind}": {value}}}'.encode())

    # Processes

    def fork(self, body: "Callable[[], object]") -> int:
        """A child that does `body` and ends; its number."""
        pid = os.fork()
        if pid == 0:
            self.child(body)
        return pid

    def child(self, body: "Callable[[], object]") -> "NoReturn":
        """What a forked child does, however the fork was made."""
        status = 1
        try:
            body()
            status = 0
        except SystemExit:
            status = 0
        except BaseException as error:
            self.fail(f"in a child: {error!r}")
        finally:
            os._exit(status)

    def reap(self, pid: int, status: int | None = 0) -> None:
        """Wait for a child as any parent does, and have its pages judged the moment the wait is over."""
        _, waited = os.waitpid(pid, 0)
        self.look()
        if status is not None:
            self.check("how the child ended", os.waitstatus_to_exitcode(waited), status)

    def dies(self, release: "Callable[[int], object]", status: int | None = 0) -> None:
        """A child makes a secret, shows it and ends by `release(address)`."""

        def body() -> None:
            address = self.secret()
            self.show(address)
            release(address)

        self.reap(self.fork(body), status)

    def exec_looker(self) -> "NoReturn":
        """Replace this process by a program that has the pages judged and ends.

        It is a small one: a judge that searches all memory finds nothing where the new program has written.
        """
        os.execv("/bin/sh", ["sh", "-c", self.looker()])

    def looker(self) -> str:
        """What /bin/sh does in that program, which takes the place of the calling process. All has been shown."""
        if self.channel < 0:
            return ":"
        os.dup2(self.channel, _SHELLS_CHANNEL)
        return f"""printf '{{"look": 1}}' >&{_SHELLS_CHANNEL}; read answer <&{_SHELLS_CHANNEL}"""

    def exec_again(self, body: "Callable[[Program], object]") -> "NoReturn":
        """Replace this process by another program of the same case, which does `body`."""
        source = (
            f"import sys; sys.path = {sys.path!r}; from mlockwipe.contract.program import Program; "
            f"from {body.__module__} import {body.__name__} as body; "
            f"body(Program({self.witness}, {self.channel}))"
        )
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", source])


class Signal:
    """One process or thread tells another that it may go on, and a number if need be."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def give(self, number: int = 0) -> None:
        os.write(self._write, number.to_bytes(8, "little"))

    def wait(self) -> int:
        return int.from_bytes(os.read(self._read, 8), "little")

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Barrier:
    """Where two processes meet. They go on at the same instant: who waits spins, for a sleeper wakes late."""

    def __init__(self) -> None:
        shared = mm.mmap(0, PAGE, READ_WRITE, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
        self._arrived = (ctypes.c_ubyte * 2).from_address(shared)

    def wait(self, number: int) -> None:
        """`number`: 0 for the one, 1 for the other."""
        self._arrived[number] = 1
        while not self._arrived[1 - number]:
            pass


def sleep_for_ever() -> "NoReturn":
    while True:
        signal.pause()


def refused(call: "Callable[..., object]", *arguments: object) -> str | None:
    """The name of the error that a call fails with, None when it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None

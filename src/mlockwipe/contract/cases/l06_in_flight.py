# SPDX-License-Identifier: MIT
"""L6: the kernel still reads a page for the program when that is gone. What it reads must not be zeros."""

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable

from mlockwipe.contract.case import KEPT, case
from mlockwipe.contract.files import write
from mlockwipe.contract.pattern import is_painted, is_zero, paint
from mlockwipe.contract.program import PAGE, PAGES, PRIVATE, READ_WRITE, SIZE, Program, refused
from mlockwipe.contract.steps import grown_heap, open_ring, ring_with_buffers, sleeping_threads
from mlockwipe.contract.task_states import state
from mlockwipe.linux import aio, mm, mman
from mlockwipe.suppress import suppress

MANY = 1024  # pages: 4 MiB, which a disk needs some time for
PREVIOUS = b"previous" * (PAGE // 8)  # what the file holds before
PART = 32 * PAGE
PARTS = [(first, PART, first) for first in range(0, MANY * PAGE, PART)]

Writer = Callable[[int, int], object]


def _disk_file(program: Program) -> int:
    """A file full of neither zeros nor the pattern, open for writes that go straight from memory to the disk."""
    write("file", PREVIOUS * (MANY + 1))
    try:
        fd = os.open("file", os.O_RDWR | os.O_DIRECT)
    except OSError:
        program.cannot("it needs a file system with direct I/O in /var/tmp")
    os.fsync(fd)
    return fd


def _content() -> tuple[int, int, int]:
    """How many pages of the file hold the pattern, what was there before, and anything else."""
    # io_uring's writes may outlast the process that began them. Truncation waits for all that are in flight.
    os.truncate("file", MANY * PAGE)
    fd = os.open("file", os.O_RDONLY)
    at = mm.mmap(0, MANY * PAGE, READ_WRITE, mman.MAP_PRIVATE, fd)
    written = previous = 0
    for page in range(at, at + MANY * PAGE, PAGE):
        written += is_painted(page, 1)
        previous += ctypes.string_at(page, PAGE) == PREVIOUS
    mm.munmap(at, MANY * PAGE)
    os.close(fd)
    return written, previous, MANY - written - previous


def _dies_while_writing(program: Program, write: Writer, end: Callable[[int], object], *, all_arrives: bool) -> None:
    """A child starts writes of a secret with `write(fd, address)` and ends by `end(address)`, three times over."""
    for _ in range(3):
        fd = _disk_file(program)

        def body(fd: int = fd) -> None:
            at = program.secret(MANY)
            write(fd, at)
            end(at)

        os.waitpid(program.fork(body), 0)
        written, _, other = _content()
        program.unharmed(f"{other} pages of the file are neither old nor new", other == 0)
        if all_arrives:
            program.unharmed(f"{MANY - written} pages never arrived", written == MANY)
        os.close(fd)


def _kill(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _from(address: int) -> list[tuple[int, int, int]]:
    return [(address + first, length, offset) for first, length, offset in PARTS]


# Native AIO can't be cancelled: bare, the end of a process waits until every write that it started is done.


def _aio(fd: int, at: int) -> None:
    aio.submit_writes(aio.setup(len(PARTS)), fd, _from(at))


@case("L6", "aio-sigkill", KEPT, "SIGKILL during native AIO", shows=False)
def aio_sigkill(program: Program) -> None:
    _dies_while_writing(program, _aio, _kill, all_arrives=True)


@case("L6", "aio-exit", KEPT, "exit during native AIO", shows=False)
def aio_exit(program: Program) -> None:
    _dies_while_writing(program, _aio, lambda _: os._exit(0), all_arrives=True)


@case("L6", "aio-exec", KEPT, "exec during native AIO", shows=False)
def aio_exec(program: Program) -> None:
    _dies_while_writing(program, _aio, lambda _: os.execv("/bin/true", ["true"]), all_arrives=True)


@case("L6", "aio-threads", KEPT, "SIGKILL of four threads during native AIO", shows=False)
def aio_threads(program: Program) -> None:
    def write(fd: int, at: int) -> None:
        sleeping_threads(3)
        _aio(fd, at)

    _dies_while_writing(program, write, _kill, all_arrives=True)


# io_uring ends with the process, and cancels what it has not begun.


def _uring(program: Program) -> Writer:
    return lambda fd, at: open_ring(program, len(PARTS)).submit_writes(fd, _from(at))


@case("L6", "io-uring-sigkill", KEPT, "SIGKILL during io_uring writes", shows=False)
def io_uring_sigkill(program: Program) -> None:
    _dies_while_writing(program, _uring(program), _kill, all_arrives=False)


@case("L6", "io-uring-exit", KEPT, "exit during io_uring writes", shows=False)
def io_uring_exit(program: Program) -> None:
    _dies_while_writing(program, _uring(program), lambda _: os._exit(0), all_arrives=False)


@case("L6", "io-uring-unmapped", KEPT, "SIGKILL during io_uring writes, the ring is not mapped any more", shows=False)
def io_uring_unmapped(program: Program) -> None:
    def write(fd: int, at: int) -> None:
        ring = open_ring(program, len(PARTS))
        ring.submit_writes(fd, _from(at))
        ring.unmap()

    _dies_while_writing(program, write, _kill, all_arrives=False)


# The program lives on, and releases what it writes from: what was begun is done, as if it had not.


def _releases_while_writing(
    program: Program, write: Writer, release: Callable[[int], object], make: Callable[[], int]
) -> None:
    """Start writes of a secret with `write(fd, address)` and give it up by `release(address)`, three times over."""
    for _ in range(3):
        fd = _disk_file(program)
        at = make()
        write(fd, at)
        release(at)
        _, _, other = _content()
        program.unharmed(f"{other} pages of the file are neither old nor new", other == 0)
        os.close(fd)


def _unmap(at: int) -> None:
    mm.munmap(at, MANY * PAGE)


@case("L6", "aio-munmap", KEPT, "munmap during native AIO", shows=False)
def aio_munmap(program: Program) -> None:
    _releases_while_writing(program, _aio, _unmap, lambda: program.secret(MANY))


@case("L6", "aio-map-fixed", KEPT, "MAP_FIXED over it during native AIO", shows=False)
def aio_map_fixed(program: Program) -> None:
    def release(at: int) -> None:
        mm.mmap(at, MANY * PAGE, READ_WRITE, PRIVATE | mman.MAP_FIXED)

    _releases_while_writing(program, _aio, release, lambda: program.secret(MANY))


@case("L6", "aio-mremap-onto", KEPT, "mremap onto it during native AIO", shows=False)
def aio_mremap_onto(program: Program) -> None:
    def release(at: int) -> None:
        other = mm.mmap(0, MANY * PAGE, READ_WRITE, PRIVATE)
        mm.mremap(other, MANY * PAGE, MANY * PAGE, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, at)

    _releases_while_writing(program, _aio, release, lambda: program.secret(MANY))


@case("L6", "aio-brk", KEPT, "a heap that shrinks during native AIO", shows=False)
def aio_brk(program: Program) -> None:
    def make() -> int:
        at = grown_heap(MANY * PAGE)
        mm.mlock(at, MANY * PAGE)
        paint(at, MANY)
        return at

    _releases_while_writing(program, _aio, mm.brk, make)


@case("L6", "aio-dontneed-locked", KEPT, "MADV_DONTNEED_LOCKED during native AIO", shows=False)
def aio_dontneed_locked(program: Program) -> None:
    def release(at: int) -> None:
        if error := refused(mm.madvise, at, MANY * PAGE, mman.MADV_DONTNEED_LOCKED):
            program.cannot(f"this kernel has no MADV_DONTNEED_LOCKED ({error}; Linux 5.18)")
        program.check("the range reads as zeros", is_zero(at, MANY), True)

    _releases_while_writing(program, _aio, release, lambda: program.secret(MANY))


@case("L6", "io-uring-munmap", KEPT, "munmap during io_uring writes", shows=False)
def io_uring_munmap(program: Program) -> None:
    _releases_while_writing(program, _uring(program), _unmap, lambda: program.secret(MANY))


@case("L6", "registered-buffers", KEPT, "io_uring writes unmapped pages that it has been told to keep", shows=False)
def registered_buffers(program: Program) -> None:
    at = program.secret()
    ring = ring_with_buffers(program, at)
    mm.munmap(at, SIZE)
    fd = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
    program.check("the write", ring.write_registered(fd, at, SIZE), SIZE)
    _arrives(program, os.pread(fd, SIZE, 0))


@case("L6", "direct-munmap", KEPT, "munmap while another thread is in a direct write", shows=False)
def direct_munmap(program: Program) -> None:
    def write(fd: int, at: int) -> None:
        secret = (ctypes.c_char * (MANY * PAGE)).from_address(at)
        thread = threading.Thread(target=os.pwrite, args=(fd, secret, 0))
        thread.start()
        with suppress(FileNotFoundError, ProcessLookupError):  # it is done already
            while thread.is_alive() and state(os.getpid(), thread.native_id) != "D":
                os.sched_yield()

    _releases_while_writing(program, write, _unmap, lambda: program.secret(MANY))


# A thread in a direct write


@case("L6", "direct-sigkill", KEPT, "SIGKILL while threads are in direct writes", shows=False)
def direct_sigkill(program: Program) -> None:
    def write(fd: int, at: int) -> None:
        started = threading.Barrier(5)

        def part(first: int) -> None:
            started.wait()
            length = MANY * PAGE // 4
            os.pwrite(fd, (ctypes.c_char * length).from_address(at + first), first)

        for first in range(0, MANY * PAGE, MANY * PAGE // 4):
            threading.Thread(target=part, args=(first,), daemon=True).start()
        started.wait()

    _dies_while_writing(program, write, _kill, all_arrives=False)


# What the kernel has copied, or keeps by reference


@case("L6", "buffered-write", KEPT, "a write through the page cache, then SIGKILL", shows=False)
def buffered_write(program: Program) -> None:
    def write(_: int, at: int) -> None:
        os.write(os.open("file", os.O_WRONLY), (ctypes.c_char * (MANY * PAGE)).from_address(at))

    _dies_while_writing(program, write, _kill, all_arrives=True)


@case("L6", "pipe", KEPT, "what was written to a pipe is read when the writer is gone", shows=False)
def pipe(program: Program) -> None:
    read_end, write_end = os.pipe()

    def body() -> None:
        at = program.secret()
        os.write(write_end, (ctypes.c_char * SIZE).from_address(at))
        _kill(at)

    os.waitpid(program.fork(body), 0)
    _arrives(program, os.read(read_end, SIZE))


def _dies_with_pages_in_a_pipe(program: Program, end: Callable[[int], object]) -> None:
    read_end, write_end = os.pipe()

    def body() -> None:
        at = program.secret()
        if mm.vmsplice(write_end, at, SIZE) < SIZE:
            program.cannot("the pipe took not all pages")
        end(at)

    os.waitpid(program.fork(body), 0)
    _arrives(program, os.read(read_end, SIZE))


@case("L6", "vmsplice-sigkill", KEPT, "a pipe refers to pages of a program that is killed", shows=False)
def vmsplice_sigkill(program: Program) -> None:
    _dies_with_pages_in_a_pipe(program, _kill)


@case("L6", "vmsplice-munmap", KEPT, "a pipe refers to pages that are unmapped", shows=False)
def vmsplice_munmap(program: Program) -> None:
    _dies_with_pages_in_a_pipe(program, lambda at: mm.munmap(at, SIZE))


@case(
    "L6",
    "tcp-zerocopy",
    KEPT,
    "MSG_ZEROCOPY data that waits for its receiver when the sender is gone",
    shows=False,
)
def tcp_zerocopy(program: Program) -> None:
    so_zerocopy, msg_zerocopy = 60, 0x4000000  # include/uapi/asm-generic/socket.h, include/linux/socket.h
    filler = b"filler.." * (256 * 1024 // 8)
    with socket.socket() as listener:
        # A receiver that takes no more than a little: the rest waits at the sender, as references to its
        # pages.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PAGE)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.socket() as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            sender.connect(listener.getsockname())
            receiver, _ = listener.accept()

            def body() -> None:
                at = program.secret()
                try:
                    sender.setsockopt(socket.SOL_SOCKET, so_zerocopy, 1)
                    sender.setblocking(False)
                    sent = sender.send(filler) + sender.send((ctypes.c_char * SIZE).from_address(at), msg_zerocopy)
                except OSError as error:
                    program.cannot(f"MSG_ZEROCOPY is refused: {error.strerror}")
                if sent < len(filler) + SIZE:
                    program.cannot("the socket took not all that was sent")
                _kill(at)

            pid = program.fork(body)
        os.waitpid(pid, 0)
        received = b""
        receiver.settimeout(5)
        while more := receiver.recv(1 << 20):
            received += more
    _arrives(program, received[len(filler) :])


def _arrives(program: Program, received: bytes) -> None:
    buffer = ctypes.create_string_buffer(received, max(len(received), 1))
    whole = len(received) == SIZE and is_painted(ctypes.addressof(buffer), PAGES)
    program.unharmed("what arrives", whole)

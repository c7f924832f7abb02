# SPDX-License-Identifier: MIT
"""Decoding calls of every ABI, and what each would release."""

import os
import struct
import threading

import pytest

from mlockwipe.linux import mm
from mlockwipe.linux.arch import PAGE_SIZE, TASK_SIZE
from mlockwipe.linux.arch.x86_64 import I386, X32_SYSCALL_BIT, X86_64
from mlockwipe.linux.mman import MADV_DONTNEED_LOCKED
from mlockwipe.linux.shm import SHM_REMAP, SHM_RND
from mlockwipe.linux.userfaultfd import MOVE
from mlockwipe.memory.calls import Call, decode, released, span

AT = 0x10000
BREAK = 0x800000


def released_by(name: str, *arguments: int) -> list[tuple[int, int]]:
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    return released(Call(name, padded), BREAK, -1, os.getpid(), {os.getpid()}, lambda start, end: [(start, end)])


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("munmap", (AT, PAGE_SIZE), [(AT, AT + PAGE_SIZE)]),
        ("munmap", (AT, 1), [(AT, AT + PAGE_SIZE)]),
        ("munmap", (AT + 1, PAGE_SIZE), []),  # EINVAL
        ("munmap", (AT, 0), []),  # EINVAL
        ("munmap", (AT, TASK_SIZE), []),  # EINVAL
        ("munmap", (AT, (1 << 64) - PAGE_SIZE), []),  # EINVAL
        ("mmap", (AT, PAGE_SIZE, 3, 0x32), [(AT, AT + PAGE_SIZE)]),
        ("mmap", (AT, PAGE_SIZE, 3, 0x22), []),  # no MAP_FIXED: a hint
        ("mmap", (AT, PAGE_SIZE, 3, 0x100022), []),  # MAP_FIXED_NOREPLACE
        ("mmap", (AT, PAGE_SIZE, 3, 0x100032), []),
        ("mremap", (AT, 4 * PAGE_SIZE, PAGE_SIZE, 0, 0), [(AT + PAGE_SIZE, AT + 4 * PAGE_SIZE)]),
        ("mremap", (AT, PAGE_SIZE, 4 * PAGE_SIZE, 1, 0), []),
        ("mremap", (AT, PAGE_SIZE, PAGE_SIZE, 3, 2 * AT), [(2 * AT, 2 * AT + PAGE_SIZE)]),
        ("brk", (BREAK - PAGE_SIZE,), [(BREAK - PAGE_SIZE, BREAK)]),
        ("brk", (BREAK + PAGE_SIZE,), []),
        ("brk", (0,), []),
        ("madvise", (AT, PAGE_SIZE, 24), [(AT, AT + PAGE_SIZE)]),
        ("madvise", (AT, PAGE_SIZE, 4), [(AT, AT + PAGE_SIZE)]),
        ("madvise", (AT, PAGE_SIZE, 8), [(AT, AT + PAGE_SIZE)]),
        ("madvise", (AT, PAGE_SIZE, 102), [(AT, AT + PAGE_SIZE)]),  # MADV_GUARD_INSTALL
        ("madvise", (AT, 1 << 62, 24), [(AT, TASK_SIZE)]),  # ENOMEM, but what is there is gone
        ("madvise", (AT, (1 << 64) - 1, 24), []),  # EINVAL
        ("madvise", (TASK_SIZE + AT, PAGE_SIZE, 24), []),
        ("madvise", (AT, PAGE_SIZE, 3), []),  # MADV_WILLNEED
        ("shmat", (0, AT, 0), []),
        ("munlock", (AT, PAGE_SIZE), []),
    ],
)
def test_what_a_call_releases(name: str, arguments: tuple[int, ...], expected: list[tuple[int, int]]) -> None:
    assert released_by(name, *arguments) == expected


@pytest.mark.parametrize(
    ("new_length", "expected"),
    [
        (4 * PAGE_SIZE, [(9 * AT, 9 * AT + PAGE_SIZE), (9 * AT + 3 * PAGE_SIZE, 9 * AT + 4 * PAGE_SIZE)]),
        (5 * PAGE_SIZE, [(9 * AT, 9 * AT + 5 * PAGE_SIZE)]),  # EFAULT: it does not grow and move several mappings
    ],
)
def test_what_lies_under_a_hole_of_what_is_moved_there_is_not_released(
    new_length: int, expected: list[tuple[int, int]]
) -> None:
    def mapped(start: int, end: int) -> list[tuple[int, int]]:
        return [(start, start + PAGE_SIZE), (end - PAGE_SIZE, end)]

    call = Call("mremap", (AT, 4 * PAGE_SIZE, new_length, 3, 9 * AT, 0))
    assert released(call, BREAK, -1, os.getpid(), {os.getpid()}, mapped) == expected


@pytest.mark.parametrize("abi", ["x86-64", "x32", "i386"])
def test_what_process_madvise_names_is_read_with_the_words_of_its_abi(abi: str) -> None:
    arch, number, layout = {
        "x86-64": (X86_64, 440, "=4Q"),
        "x32": (X86_64, 440 | X32_SYSCALL_BIT, "=4I"),
        "i386": (I386, 440, "=4I"),
    }[abi]
    fd = os.memfd_create("memory")
    pidfd = os.pidfd_open(os.getpid())
    try:
        os.pwrite(fd, struct.pack(layout, AT, PAGE_SIZE, 4 * AT, 2 * PAGE_SIZE), 64)
        call = decode(arch.audit_arch, number, (pidfd, 64, 2, MADV_DONTNEED_LOCKED, 0, 0), fd)
        ours, others = (
            released(call, BREAK, fd, os.getpid(), tids, lambda start, end: [(start, end)])
            for tids in ({os.getpid()}, {os.getppid()})
        )
    finally:
        os.close(fd)
        os.close(pidfd)
    assert ours == [(AT, AT + PAGE_SIZE), (4 * AT, 4 * AT + 2 * PAGE_SIZE)]
    assert others == []


@pytest.mark.parametrize("thread", [False, True])
def test_a_pidfd_names_any_task_that_uses_the_memory(thread: bool) -> None:
    """That of a thread (PIDFD_THREAD, Linux 6.9) tells its tid, and not the process."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    tid = other.native_id if thread else os.getpid()
    assert tid is not None
    fd = os.memfd_create("memory")
    os.pwrite(fd, struct.pack("=2Q", AT, PAGE_SIZE), 0)
    try:
        pidfd = os.pidfd_open(tid, os.O_EXCL if thread else 0)
        call = Call("process_madvise", (pidfd, 0, 1, MADV_DONTNEED_LOCKED, 0, 0))
        assert released(call, BREAK, fd, os.getpid(), {tid}, lambda start, end: []) == [(AT, AT + PAGE_SIZE)]
        not_a_pidfd = Call("process_madvise", (fd, *call.arguments[1:]))
        assert released(not_a_pidfd, BREAK, fd, os.getpid(), {tid}, lambda start, end: []) == []
        os.close(pidfd)
    except OSError:
        pytest.skip("this kernel has no pidfd of a thread (Linux 6.9)")
    finally:
        done.set()
        other.join()
        os.close(fd)


def test_shmat_may_round_its_address_down() -> None:
    segment = mm.shmget(PAGE_SIZE)
    try:
        assert released_by("shmat", segment, AT + 8, SHM_REMAP) == []  # EINVAL
        assert released_by("shmat", segment, AT + 8, SHM_REMAP | SHM_RND) == [(AT, AT + PAGE_SIZE)]
    finally:
        mm.shm_remove(segment)


def test_a_lock_covers_every_page_that_it_touches() -> None:
    assert span(AT + PAGE_SIZE - 1, 2) == (AT, AT + 2 * PAGE_SIZE)
    assert span(AT, 1 << 62) == (AT, TASK_SIZE)


@pytest.mark.parametrize("length", [0, (1 << 64) - 1, (1 << 64) - PAGE_SIZE + 1, (1 << 64) - PAGE_SIZE])
def test_a_length_that_the_kernel_rounds_to_nothing_is_nothing(length: int) -> None:
    """mlock and munlock of so much do nothing (do_mlock and apply_vma_lock_flags in mm/mlock.c)."""
    start, end = span(AT, length)
    assert start == end


def test_an_i386_call_has_32_bit_arguments() -> None:
    call = decode(I386.audit_arch, 91, (0xFFFFFFFF_00010000, PAGE_SIZE, 0, 0, 0, 0), -1)
    assert (call.name, call.arguments) == ("munmap", (AT, PAGE_SIZE, 0, 0, 0, 0))


def test_the_same_number_is_another_call_in_another_abi() -> None:
    assert decode(X86_64.audit_arch, 11, (0,) * 6, -1).name == "munmap"
    assert decode(I386.audit_arch, 150, (0,) * 6, -1).name == "mlock"
    assert decode(X86_64.audit_arch, 150, (0,) * 6, -1).name == "munlock"


def test_an_x32_call_is_the_64_bit_one() -> None:
    assert decode(X86_64.audit_arch, 149 | X32_SYSCALL_BIT, (0,) * 6, -1).name == "mlock"


def test_the_old_i386_mmap_is_read_from_memory() -> None:
    fd = os.memfd_create("memory")
    try:
        os.pwrite(fd, struct.pack("=6I", AT, PAGE_SIZE, 3, 0x2032, 0xFFFFFFFF, 0), 64)
        call = decode(I386.audit_arch, 90, (64, 0, 0, 0, 0, 0), fd)
    finally:
        os.close(fd)
    assert (call.name, call.arguments) == ("mmap", (AT, PAGE_SIZE, 3, 0x2032, 0xFFFFFFFF, 0))


@pytest.mark.parametrize(
    ("address", "expected"), [(64, (4 * AT, AT, PAGE_SIZE, 0, 0)), (1 << 12, (0,) * 5), (1 << 63, (0,) * 5)]
)
def test_what_userfaultfd_is_to_move_is_read_from_memory(address: int, expected: tuple[int, ...]) -> None:
    fd = os.memfd_create("memory")
    try:
        os.pwrite(fd, struct.pack("=5Q", 4 * AT, AT, PAGE_SIZE, 0, 0), 64)
        call = decode(X86_64.audit_arch, 16, (3, MOVE, address, 0, 0, 0), fd)
    finally:
        os.close(fd)
    assert (call.name, call.arguments) == ("uffdio_move", expected)
    with pytest.raises(KeyError):
        decode(X86_64.audit_arch, 16, (3, MOVE ^ 1, 64, 0, 0, 0), -1)


def test_shmat_of_i386_is_unfolded_from_ipc() -> None:
    call = decode(I386.audit_arch, 117, (21, 7, 0o40000, 0, AT, 0), -1)
    assert (call.name, call.arguments) == ("shmat", (7, AT, 0o40000))
    with pytest.raises(KeyError):
        decode(I386.audit_arch, 117, (22, 0, 0, 0, 0, 0), -1)  # SHMDT


def test_an_unknown_call_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        decode(X86_64.audit_arch, 0xFFFF, (0,) * 6, -1)

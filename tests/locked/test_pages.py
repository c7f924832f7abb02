# SPDX-License-Identifier: MIT
"""Locked pages: what the kernel says of them, what lies around them, and what happens where there is no room."""

import errno
import os
import signal

import pytest

from mlockwipe.linux import mm, procfs
from mlockwipe.locked.pages import LockedPages, LockLimitReached
from tests.locked.conftest import Run

PAGE = mm.PAGE_SIZE
SIZE = 3 * PAGE


def flags_at(address: int) -> frozenset[str]:
    with open("/proc/self/smaps", encoding="utf-8") as smaps:
        (flags,) = (flags for vma, flags in procfs.vma_flags(smaps.read()) if vma.start <= address < vma.end)
    return flags


@pytest.mark.usefixtures("secret")
def test_secret_pages_are_locked_and_in_no_core_dump() -> None:
    pages = LockedPages(SIZE)
    assert pages.secret
    assert {"lo", "dd", "sh", "rd", "wr"} <= flags_at(pages.address)


@pytest.mark.usefixtures("mlocked")
def test_mlocked_pages_are_locked_in_no_core_dump_and_not_passed_on() -> None:
    pages = LockedPages(SIZE)
    assert not pages.secret
    assert {"lo", "dd", "wf", "rd", "wr"} <= flags_at(pages.address)
    if os.path.exists("/sys/kernel/mm/transparent_hugepage"):
        assert "nh" in flags_at(pages.address)
    assert mm.mincore(pages.address, SIZE) == [True] * 3


@pytest.mark.usefixtures("kind")
def test_there_is_a_guard_page_at_each_end() -> None:
    pages = LockedPages(SIZE)
    for guard in (pages.address - 1, pages.address + SIZE):
        assert not {"rd", "wr", "ex"} & flags_at(guard)


@pytest.mark.parametrize(("at", "ended"), [("-1", -signal.SIGSEGV), ("size", -signal.SIGSEGV), ("size - 1", 0)])
def test_an_access_beyond_the_pages_ends_the_program(run: Run, at: str, ended: int) -> None:
    program = """
import ctypes
from mlockwipe.locked.pages import LockedPages
size = 12288
pages = LockedPages(size)
ctypes.string_at(pages.address + {at}, 1)
"""
    assert run(program.replace("{at}", at)).returncode == ended


def read_by_the_kernel(pages: LockedPages) -> bytes:
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), 4, pages.address)


@pytest.mark.usefixtures("secret")
def test_the_kernel_can_not_read_secret_pages() -> None:
    pages = LockedPages(SIZE)
    pages.memory[PAGE : PAGE + 4] = b"abcd"
    with pytest.raises(OSError) as refused:
        read_by_the_kernel(pages)
    assert refused.value.errno == errno.EIO


@pytest.mark.usefixtures("mlocked")
def test_the_kernel_can_read_mlocked_pages() -> None:
    pages = LockedPages(SIZE)
    pages.memory[PAGE : PAGE + 4] = b"abcd"
    assert read_by_the_kernel(pages) == b"abcd"


@pytest.mark.usefixtures("kind")
def test_the_pages_stay_as_long_as_something_refers_to_them() -> None:
    pages = LockedPages(SIZE)
    address, view = pages.address, memoryview(pages.memory)[PAGE:-PAGE]
    del pages
    view[:] = bytes(SIZE)
    assert "lo" in flags_at(address)
    view.release()
    with pytest.raises(OSError, match="mincore"):
        mm.mincore(address, PAGE)


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    pages = LockedPages(SIZE)
    assert os.listdir("/proc/self/fd") == before
    del pages


@pytest.mark.usefixtures("secret")
def test_the_descriptor_is_never_passed_on_by_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    inheritable = []
    make = mm.memfd_secret

    def look(flags: int = 0) -> int:
        fd = make(flags)
        inheritable.append(os.get_inheritable(fd))
        return fd

    monkeypatch.setattr(mm, "memfd_secret", look)
    LockedPages(1)
    assert inheritable == [False]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_mlock_is_used_where_memfd_secret_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(flags: int) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(mm, "memfd_secret", refuse)
    assert not LockedPages(1).secret


def test_another_error_of_memfd_secret_is_no_reason_for_less_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> int:
        raise OSError(errno.EMFILE, "memfd_secret(): no")

    monkeypatch.setattr(mm, "memfd_secret", refuse)
    with pytest.raises(OSError, match="memfd_secret") as refused:
        LockedPages(1)
    assert refused.value.errno == errno.EMFILE


@pytest.mark.usefixtures("mlocked")
def test_an_error_that_is_not_the_limit_is_not_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: int, length: int) -> None:
        raise OSError(errno.ENOMEM, "mlock(): no")

    monkeypatch.setattr(mm, "mlock", refuse)
    with pytest.raises(OSError, match=r"mlock\(\): no"):
        LockedPages(1)


LIMITED = """
import errno, re, resource, sys
from mlockwipe import LockedBuffer, LockLimitReached
from mlockwipe.linux import capability
capability.drop(capability.CAP_IPC_LOCK)
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
held = []
try:
    while True:
        held.append(LockedBuffer(4096))
except LockLimitReached as error:
    assert isinstance(error, OSError) and error.errno == errno.ENOMEM
    print(len(held), error.strerror)
if held:
    del held[0]
    LockedBuffer(4096)
"""


@pytest.mark.parametrize("limit", [0, 16384])
def test_the_limit_of_locked_memory_is_an_error_that_says_so(run: Run, limit: int) -> None:
    done = run(LIMITED, limit)
    assert done.stderr == ""
    assert done.stdout == (
        f"{limit // 4096} can't lock 4096 more bytes of memory: {limit} are locked and the limit (RLIMIT_MEMLOCK) is "
        f"{limit}; raise it with 'ulimit -l' (in KiB) or LimitMEMLOCK= of the service, or release other buffers\n"
    )


@pytest.mark.parametrize("size", [1 << 60, 1 << 70])
def test_more_than_there_can_be_is_no_question_of_the_limit(size: int) -> None:
    with pytest.raises(OSError, match=r"ENOMEM|\[Errno 12\]") as raised:
        LockedPages(size)
    assert isinstance(raised.value, LockLimitReached) == (os.geteuid() != 0 and size < 1 << 64)

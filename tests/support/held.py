# SPDX-License-Identifier: MIT
"""A witness for programs that show nothing by themselves: their pages, put into a pipe from outside.

The program is stopped for a moment and made to open the pipe and to vmsplice(2) pages into it, through the same means
by which the supervisor executes calls in a program. Needs root.
"""

import copy
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.linux.wait import TrapStop, await_stop
from mlockwipe.memory.inject import Injection
from mlockwipe.memory.instruction import system_call_instruction

_ABI = copy.copy(NATIVE)
_ABI.numbers = {**NATIVE.numbers, "close": 3, "vmsplice": 278}
_AT_FDCWD, _NONBLOCK = -100, 2
_MOST = 256  # pages, for which a pipe has room at most (/proc/sys/fs/pipe-max-size)


def pages_in_use(pid: int, *, locked: bool) -> list[int]:
    """The private anonymous pages of a process that are not all zeros, or those of them that are locked."""
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        found = []
        pagemap = procfs.open_file(pid, "pagemap")
        for vma, flags in procfs.vma_flags(file.read()):
            if vma.shared or vma.inode or vma.name.startswith("[v") or (locked and "lo" not in flags):
                continue
            for start, end in procfs.anonymous_pages(pagemap, vma.start, vma.end):
                for page in range(start, end, PAGE_SIZE):
                    memory.seek(page)
                    if any(memory.read(PAGE_SIZE)):
                        found.append(page)
        os.close(pagemap)
        return found


class Held:
    """Physical pages that are kept from being used again."""

    def __init__(self, read_end: int, before: list[bytes]) -> None:
        self._read_end = read_end
        self.before = before

    def now(self) -> list[bytes]:
        """What they hold. It can be asked for once."""
        found = []
        for _ in self.before:
            page = b""
            while len(page) < PAGE_SIZE:
                page += os.read(self._read_end, PAGE_SIZE - len(page))
            found.append(page)
        return found


@contextmanager
def held(pid: int, pages: list[int]) -> Iterator[Held]:
    """Hold pages of a running process, past its end."""
    pages = pages[:_MOST]
    read_end, write_end = os.pipe()
    try:
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _MOST * PAGE_SIZE)
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            before = []
            for page in pages:
                memory.seek(page)
                content = memory.read(PAGE_SIZE)
                before.append(content)
                # Its own page from here on: one that is shared since a fork would be copied by the next write.
                memory.seek(page)
                memory.write(content)
        _splice(pid, pages, f"/proc/{os.getpid()}/fd/{write_end}")
        yield Held(read_end, before)
    finally:
        os.close(read_end)
        os.close(write_end)


def _splice(pid: int, pages: list[int], path: str) -> None:
    ptrace.seize(pid, 0)
    ptrace.interrupt(pid)
    await_stop(pid)
    _, instruction = system_call_instruction(pid)
    with Injection(pid, _ABI, instruction) as task:
        scratch = task.call("mmap", 0, PAGE_SIZE, 3, 0x22, 0xFFFFFFFF, 0)
        assert scratch > 0
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(scratch)
            memory.write(path.encode() + b"\0")
            fd = task.call("openat", _AT_FDCWD, scratch, os.O_WRONLY, 0)
            assert fd >= 0
            for page in pages:
                memory.seek(scratch)
                memory.write(struct.pack("=QQ", page, PAGE_SIZE))
                assert task.call("vmsplice", fd, scratch, 1, _NONBLOCK) == PAGE_SIZE
        task.call("close", fd)
        task.call("munmap", scratch, PAGE_SIZE)
    ptrace.interrupt(pid)  # a single step's trap flag would stay
    ptrace.cont(pid)
    assert isinstance(await_stop(pid), TrapStop)
    ptrace.detach(pid)

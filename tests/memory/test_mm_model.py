# SPDX-License-Identifier: MIT
"""The model of the kernel, by which the sensitive ranges are tested, does what this kernel does."""

import contextlib
import os
import platform
import struct
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from mlockwipe.linux import mm, mman, procfs
from mlockwipe.linux.arch import NATIVE, PAGE_SIZE
from mlockwipe.memory.calls import Call
from tests.memory.test_sensitive import BASE, HEAP, OWN, at, call, calls
from tests.support.c_programs import compiled, needs_gcc
from tests.support.mm_model import SEGMENT, Model, Page

_NOT_COMPARED = ("forbid", "brk", "madvise", "process_madvise")  # no mapping of the area is changed by these
_KERNEL = tuple(int(part) for part in platform.release().split(".")[:2])


class Program:
    """A process that makes calls. It maps `file`, and attaches `segment`."""

    def __init__(self, process: "subprocess.Popen[bytes]", file: int, segment: int) -> None:
        self.process = process
        self.file = file
        self.segment = segment

    def execute(self, call: Call, offset: int) -> int:
        arguments = list(call.arguments)
        if call.name == "mmap":
            # only to be read, or private pages were of several anon_vmas, and not joined where they could be
            arguments[2] &= ~mman.PROT_WRITE
            arguments[4:] = self.file, offset * PAGE_SIZE
        elif call.name == "shmat":
            arguments[0] = self.segment
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack("=qQQQQQQ", NATIVE.numbers[call.name], *arguments))
        (result,) = struct.unpack("=q", self.process.stdout.read(8))
        return int(result)

    def pages(self, model: Model) -> dict[int, tuple[bool, bool, bool]]:
        """Of each page from BASE on, and of those that the model has elsewhere: shared, locked and sealed."""
        with open(f"/proc/{self.process.pid}/smaps", "rb") as smaps:
            mappings = list(procfs.flagged_vmas(smaps.fileno()))
        return {
            page: (vma.shared, "lo" in flags, "sl" in flags)
            for vma, flags in mappings
            for page in range(model.number(vma.start), model.number(vma.end))
            if 0 <= page < 1 << 12 or page in model.pages
        }


@contextlib.contextmanager
def running() -> Iterator[Program]:
    file = os.memfd_create("file")
    segment = mm.shmget(SEGMENT * PAGE_SIZE)
    os.ftruncate(file, 1 << 30)
    try:
        with subprocess.Popen(
            [compiled("calls")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=[file]
        ) as process:
            yield Program(process, file, segment)
            process.kill()
    finally:
        mm.shm_remove(segment)
        os.close(file)


def made_of(page: Page, number: int, count: int) -> list[Call]:
    """The calls by which such pages come about."""
    where = at(number), count * PAGE_SIZE
    protection = mman.PROT_NONE if page.inaccessible else mman.PROT_READ
    kind = mman.MAP_SHARED if page.shared else mman.MAP_PRIVATE
    return [
        call("mmap", *where, protection, kind | mman.MAP_FIXED),
        *([call("mlock2", *where, int(page.on_fault))] if page.locked else []),
        *([call("mseal", *where)] if page.sealed else []),
    ]


@st.composite
def sequences(draw: st.DrawFn) -> list[Call]:
    number, found = 0, []
    for kind, count in draw(st.lists(st.tuples(st.sampled_from(OWN), st.integers(1, 6)), max_size=12)):
        page = kind(0)
        found += made_of(page, number, count) if page else []
        number += count
    return found + draw(st.lists(calls.filter(lambda call: call.name not in _NOT_COMPARED), max_size=8))


@needs_gcc
@pytest.mark.skipif(_KERNEL < (6, 17), reason="before Linux 6.17, mremap(2) moves one mapping at a time")
@settings(max_examples=60, deadline=None)
@given(sequences())
@example([*made_of(Page(0, locked=True), 0, 2), call("mremap", at(0), 2 * PAGE_SIZE, 4 * PAGE_SIZE)])
def test_the_model_does_what_the_kernel_does(sequence: list[Call]) -> None:
    with running() as program:
        model = Model(BASE, HEAP)
        for one in sequence:
            note(f"{one}")
            result = program.execute(one, model.next_origin)
            model.choose = lambda count, result=result: model.number(result)  # type: ignore[misc]
            assert model.execute(one) == result
            assert program.pages(model) == {
                number: (page.shared, page.locked, page.sealed) for number, page in model.pages.items()
            }
            if one.name == "mremap" and one.arguments[3] & mman.MREMAP_DONTUNMAP and result > 0:
                break  # what is alike again is not joined again

# SPDX-License-Identifier: MIT
"""I/O in flight when memory is released: who waits for it, and who does not."""

import sys
from pathlib import Path

import pytest

from mlockwipe.contract.witness import witness
from mlockwipe.linux.io_uring import Ring
from mlockwipe.memory.in_flight import PATIENCE
from tests.support.running import run_supervised

START = """
import ctypes, os, signal, sys, time
from mlockwipe.linux import mm, mman
from mlockwipe.linux.io_uring import Ring
PAGE, SIZE = 4096, 16 * 4096
def secret():
    at = mm.mmap(0, SIZE, 3, 0x22)
    mm.mlock(at, SIZE)
    ctypes.memset(at, 0xA5, SIZE)
    return at
def took(call):
    before = time.monotonic()
    call()
    return time.monotonic() - before
"""


@pytest.fixture(autouse=True)
def io_uring() -> None:
    try:
        Ring(1).close()
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")


def python(source: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", START + source, *arguments]


def test_nobody_waits_for_a_request_that_refers_to_no_memory() -> None:
    outcome = run_supervised(
        python("""
at, ring = secret(), Ring(1)
_, full = os.pipe()
os.set_blocking(full, False)
try:
    while True: os.write(full, bytes(PAGE))
except BlockingIOError: os.set_blocking(full, True)
assert ring.submit_writes(full, [(mm.mmap(0, PAGE, 3, 0x22), PAGE, 0)]) == 1
def child(end):
    if (pid := os.fork()) == 0:
        end()
    os.waitpid(pid, 0)
print(took(lambda: child(lambda: os._exit(0))))
print(took(lambda: child(lambda: os.execv("/bin/true", ["true"]))))
print(took(lambda: mm.munmap(at, SIZE)))
""")
    )
    assert outcome.status == 0, outcome.err
    assert all(float(seconds) < PATIENCE / 2 for seconds in outcome.out.split())


WHO_DIES_FIRST = """
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
witness, done = int(sys.argv[2]), os.pipe()
at_parent, at_child = os.pipe(), os.pipe()
if (parent := os.fork()) == 0:
    at, ring = secret(), Ring(1)
    assert mm.vmsplice(witness, at, SIZE) == SIZE
    ring.register(at, SIZE)
    if os.fork() == 0:
        os.read(at_child[0], 1)
        assert ring.write_registered(file, at, SIZE) == SIZE
        os.write(at_parent[1], b"1")
        os.read(at_child[0], 1)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
other = took(lambda: mm.munmap(secret(), SIZE))
waited = took(lambda: os.waitpid(parent, 0))
os.write(at_child[1], b"1")
os.read(at_parent[0], 1)
assert os.pread(file, SIZE, 0) == b"\\xA5" * SIZE
os.write(at_child[1], b"1")
print(other, waited)
"""


def test_what_another_process_can_still_write_is_wiped_when_it_can_not_any_more(tmp_path: Path) -> None:
    with witness() as seen:
        command = python(WHO_DIES_FIRST, str(tmp_path / "file"), str(seen.write_end))
        outcome = run_supervised(command, pass_fds=(seen.write_end,))
        seen.look()
    assert outcome.status == 0, outcome.err
    other, waited = map(float, outcome.out.split())
    assert other < PATIENCE / 2  # while it is waited for
    assert waited < 2 * PATIENCE
    assert "is wiped only when I/O that still refers to it is done" in outcome.err
    assert (seen.pages.total, seen.pages.dirty) == (16, 0)


MANY_AT_ONCE = """
import threading
wrong = []
def work(number):
    file = os.memfd_create("file")
    for turn in range(20):
        ring = Ring(1)
        pages = 1 + (number + turn) % 5
        at = mm.mmap(0, pages * PAGE, 3, 0x22)
        mm.mlock(at, pages * PAGE)
        ctypes.memset(at, turn + 1, pages * PAGE)
        ring.register(at, pages * PAGE)
        [lambda: mm.munmap(at, pages * PAGE), lambda: mm.madvise(at, pages * PAGE, mman.MADV_DONTNEED_LOCKED),
         lambda: mm.mremap(at, pages * PAGE, PAGE)][turn % 3]()
        written = ring.write_registered(file, at, pages * PAGE)
        if written != pages * PAGE or os.pread(file, written, 0) != bytes([turn + 1]) * written:
            wrong.append((number, turn, written))
        ring.unregister()
        if turn % 3:
            mm.munmap(at, PAGE if turn % 3 == 2 else pages * PAGE)
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
deadline = time.monotonic() + 10
while "VmLck:\\t       0 kB" not in open("/proc/self/status").read() and time.monotonic() < deadline:
    time.sleep(0.01)
print(wrong, "VmLck:\\t       0 kB" in open("/proc/self/status").read())
"""


def test_threads_that_release_at_the_same_time_lose_nothing() -> None:
    outcome = run_supervised(python(MANY_AT_ONCE))
    assert (outcome.status, outcome.out, outcome.err) == (0, "[] True\n", "")

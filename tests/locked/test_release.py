# SPDX-License-Identifier: MIT
"""What the physical pages hold when a buffer is gone, and what a forked child gets to see.

The witness is the contract's: pages that were vmspliced into a pipe stay in it, whatever becomes of the program. It
can't be shown pages of memfd_secret, which the kernel itself may not touch; those are looked at from inside.
"""

import os
import signal
import subprocess
import sys

import pytest

from mlockwipe import LockedBuffer
from mlockwipe.linux import mm
from tests.locked.conftest import WITHOUT_MEMFD_SECRET, Run

PAGE = mm.PAGE_SIZE
SECRET = os.urandom(40)


def shown(buffer: LockedBuffer, pipe: int) -> None:
    mm.vmsplice(pipe, buffer._slot.pages.address, PAGE)


@pytest.mark.usefixtures("mlocked")
@pytest.mark.parametrize("size", [40, 3000])
@pytest.mark.parametrize("way", ["release", "del", "clear", "none"])
def test_the_physical_page_is_zero_after(way: str, size: int) -> None:
    read_end, write_end = os.pipe()
    buffer = LockedBuffer(SECRET.rjust(size))
    shown(buffer, write_end)
    if way == "del":
        del buffer
    elif way != "none":  # the control: not released, it is there
        getattr(buffer, way)()
    page = os.read(read_end, PAGE)
    assert len(page) == PAGE
    assert (SECRET in page) is (way == "none")
    assert any(page) is (way == "none")
    os.close(read_end)
    os.close(write_end)


ENDING = """
import os, signal, sys
from mlockwipe import LockedBuffer
from mlockwipe.linux import mm
buffer = LockedBuffer(bytes.fromhex(sys.argv[2]))
cycle = [buffer]
cycle.append(cycle)
mm.vmsplice(int(sys.argv[1]), buffer._slot.pages.address, 4096)
"""


@pytest.mark.parametrize(
    ("end", "status", "is_left"),
    [
        ("", 0, False),
        ("sys.exit(3)", 3, False),
        ("raise KeyboardInterrupt", -signal.SIGINT, False),
        ("raise RuntimeError", 1, False),
        # Nothing of Python runs any more: these are the controls, and what mlockwipe run is for.
        ("os._exit(0)", 0, True),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, True),
    ],
)
def test_at_the_end_of_the_interpreter_the_physical_page_is_zero(
    run_mlocked: Run, end: str, status: int, is_left: bool
) -> None:
    read_end, write_end = os.pipe()
    done = run_mlocked(ENDING + end, write_end, SECRET.hex(), pass_fds=(write_end,))
    assert done.returncode == status
    page = os.read(read_end, PAGE)
    assert (SECRET in page) is is_left
    assert any(page) is is_left
    os.close(read_end)
    os.close(write_end)


def test_the_supervisor_wipes_what_a_killed_interpreter_could_not() -> None:
    read_end, write_end = os.pipe()
    program = WITHOUT_MEMFD_SECRET + ENDING + "os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-m", "mlockwipe", "run", "--", sys.executable, "-c", program, str(write_end), SECRET.hex()],
        pass_fds=(write_end,),
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert os.read(read_end, PAGE) == bytes(PAGE)
    os.close(read_end)
    os.close(write_end)


def test_who_comes_after_the_end_finds_zeros_and_an_error(run: Run) -> None:
    """Handlers that were registered before the library was loaded run after its own."""
    program = """
import atexit
def late():
    print(any(view))
    try:
        buffer[0]
    except ValueError as error:
        print(error)
    print(LockedBuffer(b"new") == b"new")
atexit.register(late)
from mlockwipe import LockedBuffer
buffer = LockedBuffer(b"secret")
view = buffer[:]
"""
    done = run(program)
    assert done.stdout == "False\nthis LockedBuffer can't be used: the interpreter is ending\nTrue\n"
    assert done.stderr == ""


CHILD = """
import os, sys
from mlockwipe import LockedBuffer
small, large, released = LockedBuffer(b"small secret"), LockedBuffer(b"large secret" * 1000), LockedBuffer(b"x")
released.release()
views = [small[:], large[:]]
pid = os.fork()
if pid == 0:
    print([any(view) for view in views], small.released, large.released, released.released)
    for buffer in (small, large):
        try:
            buffer[0]
        except ValueError as error:
            print(error)
        for view in views:  # a child that writes, releases, or drops what it has
            view[:] = b"y" * len(view)
        buffer.release()
    own = LockedBuffer(b"of the child")
    print(own == b"of the child")
    del buffer, small, view, views
    END
os.waitpid(pid, 0)
print(small == b"small secret", large == b"large secret" * 1000, small.released, released.released)
"""


@pytest.mark.parametrize("end", ["sys.exit()", "sys.stdout.flush(); os._exit(0)"])
def test_a_forked_child_has_zeros_and_can_not_harm_its_parent(run: Run, end: str) -> None:
    done = run(CHILD.replace("END", end))
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[False, False] True True True",
        *["this LockedBuffer can't be used: it belongs to the process that forked this one"] * 2,
        "True",
        "True True False True",
    ]


def test_a_child_of_multiprocessing_is_such_a_child(run: Run) -> None:
    program = """
import multiprocessing
from mlockwipe import LockedBuffer
buffer = LockedBuffer(b"secret")
def child():
    assert buffer.released
    LockedBuffer(10)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
print(process.exitcode, buffer == b"secret")
"""
    done = run(program)
    assert done.stdout == "0 True\n", done.stderr


def test_a_fork_in_the_midst_of_allocations_by_other_threads(run: Run) -> None:
    program = """
import os, threading
from mlockwipe import LockedBuffer
ended = False
def work():
    while not ended:
        buffers = [LockedBuffer(b"x" * size) for size in (16, 500, 3000)]
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
mine = LockedBuffer(b"mine")
statuses = set()
for _ in range(60):
    pid = os.fork()
    if pid == 0:
        fresh = [LockedBuffer(b"y" * size) for size in (16, 500, 3000)]
        os._exit(0 if mine.released and all(set(buffer) == {ord("y")} for buffer in fresh) else 1)
    statuses.add(os.waitpid(pid, 0)[1])
ended = True
for thread in threads:
    thread.join()
print(statuses, mine == b"mine")
"""
    done = run(program)
    assert done.stdout == "{0} True\n", done.stderr

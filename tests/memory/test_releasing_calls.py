# SPDX-License-Identifier: MIT
"""Which calls release memory: each of the kernel's is named in docs/supervisor.md, or here as one that does not.

The lists are those of Linux 6.18, and are held against the headers that are installed: what a later kernel adds fails
here until it is named. What the table says is seen by a witness on this kernel: whatever a call releases of locked
memory, and of a child's inherited copies, is wiped.
"""

import re
from pathlib import Path

import pytest

from mlockwipe.linux.arch import PAGE_SIZE as PAGE
from tests.fuzz import SUPERVISED, outcomes, same
from tests.support.c_programs import needs_gcc
from tests.support.fuzz_scripts import ADVICE, ARENA, OWN, SCRATCH, Line, Script

DOCUMENT = Path(__file__).parents[2] / "docs" / "supervisor.md"
INCLUDE = Path("/usr/include")

ADVICES = {
    "MADV_NORMAL": 0, "MADV_RANDOM": 1, "MADV_SEQUENTIAL": 2, "MADV_WILLNEED": 3, "MADV_DONTNEED": 4, "MADV_FREE": 8,
    "MADV_REMOVE": 9, "MADV_DONTFORK": 10, "MADV_DOFORK": 11, "MADV_MERGEABLE": 12, "MADV_UNMERGEABLE": 13,
    "MADV_HUGEPAGE": 14, "MADV_NOHUGEPAGE": 15, "MADV_DONTDUMP": 16, "MADV_DODUMP": 17, "MADV_WIPEONFORK": 18,
    "MADV_KEEPONFORK": 19, "MADV_COLD": 20, "MADV_PAGEOUT": 21, "MADV_POPULATE_READ": 22, "MADV_POPULATE_WRITE": 23,
    "MADV_DONTNEED_LOCKED": 24, "MADV_COLLAPSE": 25, "MADV_HWPOISON": 100, "MADV_SOFT_OFFLINE": 101,
    "MADV_GUARD_INSTALL": 102, "MADV_GUARD_REMOVE": 103,
}  # fmt: skip
# All that mm/, ipc/shm.c and fs/exec.c define, and what else ends, moves or changes a program's pages.
# madvise is named by its advices.
CALLS = (
    "brk", "mmap", "munmap", "mremap", "mprotect", "pkey_mprotect", "process_madvise", "process_mrelease",
    "mlock", "mlock2", "mlockall", "munlock", "munlockall", "mbind", "migrate_pages", "move_pages", "mseal",
    "remap_file_pages", "shmat", "shmdt", "exit", "exit_group", "execve", "execveat", "ftruncate", "fallocate",
    "vmsplice",
)  # fmt: skip
# Of the calls of mm/, those that leave a program's pages what and where they are.
HARMLESS = {
    "mlock": "locks", "mlock2": "locks", "mlockall": "locks",
    "pkey_alloc": "a key, and no page", "pkey_free": "a key, and no page",
    "mincore": "only tells", "get_mempolicy": "only tells", "cachestat": "only tells",
    "msync": "of shared mappings alone",
    "set_mempolicy": "for what is mapped later", "set_mempolicy_home_node": "for what is mapped later",
    "fadvise64": "of file pages alone", "readahead": "of file pages alone",
    "process_vm_readv": "writes, and releases nothing", "process_vm_writev": "writes, and releases nothing",
    "memfd_create": "a new file", "memfd_secret": "a new file, which the kernel clears",
    "userfaultfd": "its ioctls are named",
    "map_shadow_stack": "a new mapping", "truncate": "as ftruncate",
    "swapon": "of the machine", "swapoff": "of the machine",
}  # fmt: skip
NEWEST_CALL = 469  # file_setattr, Linux 6.18
LATER_CALLS = {"listns": "only tells", "rseq_slice_yield": "gives up the CPU"}
FAULT_REQUESTS = frozenset(
    ("API", "REGISTER", "UNREGISTER", "WAKE", "COPY", "ZEROPAGE", "MOVE", "WRITEPROTECT", "CONTINUE", "POISON")
)
# Of the requests of io_uring, all but these move data or files, wait or tell.
RING_REQUESTS = {"IORING_OP_MADVISE"}
RING_HARMLESS = frozenset(
    (
        "NOP", "READV", "WRITEV", "FSYNC", "READ_FIXED", "WRITE_FIXED", "POLL_ADD", "POLL_REMOVE",
        "SYNC_FILE_RANGE", "SENDMSG", "RECVMSG", "TIMEOUT", "TIMEOUT_REMOVE", "ACCEPT", "ASYNC_CANCEL",
        "LINK_TIMEOUT", "CONNECT", "FALLOCATE", "OPENAT", "CLOSE", "FILES_UPDATE", "STATX", "READ", "WRITE",
        "FADVISE", "SEND", "RECV", "OPENAT2", "EPOLL_CTL", "SPLICE", "PROVIDE_BUFFERS", "REMOVE_BUFFERS",
        "TEE", "SHUTDOWN", "RENAMEAT", "UNLINKAT", "MKDIRAT", "SYMLINKAT", "LINKAT", "MSG_RING", "FSETXATTR",
        "SETXATTR", "FGETXATTR", "GETXATTR", "SOCKET", "URING_CMD", "SEND_ZC", "SENDMSG_ZC", "READ_MULTISHOT",
        "WAITID", "FUTEX_WAIT", "FUTEX_WAKE", "FUTEX_WAITV", "FIXED_FD_INSTALL", "FTRUNCATE", "BIND",
        "LISTEN", "RECV_ZC", "EPOLL_WAIT", "READV_FIXED", "WRITEV_FIXED", "PIPE", "NOP128", "URING_CMD128",
        "LAST"
    )
)  # fmt: skip


def named() -> dict[str, str]:
    """What the table says of each name in its first column."""
    section = DOCUMENT.read_text().partition("## Which calls release memory\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*`.*) \| (.*) \|$", section, re.MULTILINE)
    return {name: says for names, says in rows for name in re.findall(r"`(\w+)`", names)}


def header(name: str) -> str:
    found = sorted(INCLUDE.glob(f"**/{name}"))
    if not found:
        pytest.skip(f"{name} is not installed: apt-get install linux-libc-dev")
    return "\n".join(path.read_text() for path in found)


def test_the_table_names_each_advice_call_and_request() -> None:
    wanted = {*ADVICES, *(set(CALLS) - set(HARMLESS)), *(f"UFFDIO_{name}" for name in FAULT_REQUESTS), *RING_REQUESTS}
    assert wanted - set(named()) == set()


def test_each_row_says_what_is_done() -> None:
    for name, says in named().items():
        assert re.match(r"(wiped|followed|kept|nothing|limit)\b", says), name


def test_the_headers_have_no_advice_that_is_not_named() -> None:
    found = {name: int(value) for name, value in re.findall(r"#define (MADV_\w+)\s+(\d+)", header("mman-common.h"))}
    assert found.items() <= ADVICES.items()


def test_the_headers_have_no_call_that_is_not_named() -> None:
    found = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", header("unistd_64.h"))}
    assert {name for name, number in found.items() if number > NEWEST_CALL} <= set(LATER_CALLS)
    assert set(found) >= {"brk", "munmap", "madvise"}


def test_the_headers_have_no_request_of_userfaultfd_and_io_uring_that_is_not_named() -> None:
    faults = set(re.findall(r"#define UFFDIO_(\w+)\s+_IO", header("userfaultfd.h")))
    assert faults <= FAULT_REQUESTS
    rings = set(re.findall(r"^\t(IORING_OP_\w+),", header("io_uring.h"), re.MULTILINE))
    assert rings - RING_REQUESTS <= {f"IORING_OP_{name}" for name in RING_HARMLESS}


AT = ARENA + 4 * PAGE
PAGES = 4 * PAGE
PREPARED = [
    Line(0, "call", ("mmap", ARENA, 16 * PAGE, 3, 0x32, -1, 0)),
    Line(0, "call", ("mlock", ARENA, 16 * PAGE)),
    Line(0, "fill", (ARENA, 16)),
]
BREAK = [
    Line(0, "call", ("brk", f"B+{8 * PAGE}")),
    Line(0, "call", ("mlock", "B+0", 8 * PAGE)),
    Line(0, "show", (f"B+{4 * PAGE}", 4)),
    Line(0, "call", ("brk", f"B+{4 * PAGE}")),
]
NAMING = [Line(0, "poke", (0, AT)), Line(0, "poke", (8, PAGES))]


def call(*arguments: int | str) -> Line:
    return Line(0, "call", arguments)


RELEASES = {
    "munmap": [call("munmap", AT, PAGES)],
    "mmap": [call("mmap", AT, PAGES, 3, 0x32, -1, 0)],
    "mmap of a file": [call("mmap", AT, PAGES, 1, 0x11, "file", 0)],
    "mmap, locked": [call("mmap", AT, PAGES, 3, 0x2032, -1, 0)],
    "mremap that shrinks": [call("mremap", AT, PAGES, PAGE, 0)],
    "mremap onto it": [call("mremap", ARENA, PAGES, PAGES, 3, AT)],
    "mremap away, and away": [call("mremap", AT, PAGES, PAGES, 3, ARENA + OWN), call("munmap", ARENA + OWN, PAGES)],
    "mremap that leaves the old place": [
        call("mremap", AT, PAGES, PAGES, 7, ARENA + OWN),
        call("munmap", ARENA + OWN, PAGES),
    ],
    "shmat": [call("shmat", "S", AT, 0o40000)],
    "MADV_DONTNEED_LOCKED": [call("madvise", AT, PAGES, 24)],
    "MADV_DONTNEED_LOCKED and more": [call("madvise", AT, PAGES, 24 | 0x5A5A << 32)],
    "process_madvise": [*NAMING, call("process_madvise", "self", SCRATCH, 1, 24, 0)],
    "process_madvise of PIDFD_SELF": [*NAMING, call("process_madvise", -10000, SCRATCH, 1, 24, 0)],
    "exit_group": [Line(0, "end-exit")],
    "exit": [Line(0, "end-thread")],
    "execve": [Line(0, "end-exec")],
    "a signal": [Line(0, "end-kill")],
}


def scripts(lines: dict[str, list[Line]], *, in_child: bool) -> list[Script]:
    show = Line(0, "show", (AT, 4))
    made = []
    for name, then in lines.items():
        looked = [show, *then, *([] if then[-1].operation.startswith("end-") else [Line(0, "look")])]
        body = [Line(0, "fork", (0,), body=looked)] if in_child else looked
        made.append(Script(name, (*PREPARED, *body)))
    return made


def seen_of(made: list[Script]) -> list[tuple[str, str, str]]:
    """Of each: its name, and what was seen of it bare and supervised."""
    bare, supervised = outcomes(made), outcomes(made, SUPERVISED)
    return list(zip([one.name for one in made], bare, supervised, strict=True))


def releases(seen: str) -> bool:
    return "sensitive gone" in seen


@needs_gcc
@pytest.mark.parametrize("in_child", [False, True], ids=["locked", "inherited"])
def test_what_releases_memory_wipes_it(in_child: bool) -> None:
    # The descriptor is its parent's, in a child.
    lines = {name: then for name, then in RELEASES.items() if not (in_child and name == "process_madvise")}
    made = scripts(lines, in_child=in_child)
    made += [] if in_child else [Script("brk", (*PREPARED, *BREAK, Line(0, "look")))]
    for name, bare, supervised in seen_of(made):
        assert releases(bare) and not re.search(r"sensitive gone: (zero|other|missing)", bare), (name, bare)
        assert same(bare, supervised, wiped=True), (name, supervised)


@needs_gcc
@pytest.mark.parametrize("in_child", [False, True], ids=["locked", "inherited"])
def test_of_all_advices_those_that_release_wipe(in_child: bool) -> None:
    """A number that is no advice today may be one of a later kernel: all small ones are tried."""
    numbers = sorted({*ADVICE, *range(26, 40), *range(104, 110)})
    lines = {f"{number} {call_}": [one] for number in numbers for call_, one in advised(number).items()}
    by_number = {value: name for name, value in ADVICES.items()}
    for name, bare, supervised in seen_of(scripts(lines, in_child=in_child)):
        advice = by_number.get(int(name.split()[0]), "no advice")
        if "gone" in bare.partition("end:")[0] and " wiped" not in f" {named().get(advice, 'wiped')}":
            pytest.fail(f"{advice} releases memory, which the table does not say: {bare}")
        if advice == "MADV_FREE" and in_child:  # whoever reads on sees what was there, or zeros: both are right
            assert not re.search(r"sensitive gone: \d", supervised), (name, supervised)
        else:
            assert same(bare, supervised, wiped=True), (advice, name, bare, supervised)


def advised(number: int) -> dict[str, Line]:
    named_by_vector = Line(0, "", body=[*NAMING, call("process_madvise", "self", SCRATCH, 1, number, 0)])
    return {"madvise": call("madvise", AT, PAGES, number), "process_madvise": named_by_vector}

# SPDX-License-Identifier: MIT
"""Random scripts for tests/programs/fuzzed.c: memory, children, signals and I/O, by up to four threads.

A script is a list of lines, each for one of the threads. They are executed in turns, one after the other, or, but for
those of the first thread, in a race: then each thread keeps to memory of its own. Either way the same script comes to
the same, whoever looks on. Addresses are the script's own, in an arena where nothing else is mapped.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from mlockwipe.linux.arch import PAGE_SIZE as PAGE

ARENA = 0x1000_0000_0000
SCRATCH = ARENA + (1 << 32) + PAGE
OWN = 1 << 26  # bytes of the arena for each thread
PAGES = 24  # of them are used, as a rule
THREADS = 4

READ, WRITE, EXEC = 1, 2, 4
SHARED, PRIVATE, FIXED, ANONYMOUS = 1, 2, 0x10, 0x20
LOCKED, NORESERVE, POPULATE, NOREPLACE = 0x2000, 0x4000, 0x8000, 0x100000
# No MAP_GROWSDOWN: of what grows down only the stack is followed, a limit in docs/threat-model.md.
MAYMOVE, MREMAP_FIXED, DONTUNMAP = 1, 2, 4
# All of include/uapi/asm-generic/mman-common.h, but for 100 and 101, which take pages away from the machine.
ADVICE = (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 102, 103, 7, 5)
SA_RESTART, SA_NODEFER = 0x10000000, 0x40000000
USR1, USR2, CHLD, WINCH, ALRM = 10, 12, 17, 28, 14
DEFAULT, IGNORE, HANDLE = range(3)
# Addresses and lengths that no call can do anything with. None that one could: mlock of a terabyte succeeds.
EVIL = (0, 1, -1, -PAGE, PAGE - 1, 1 << 47, (1 << 47) - 1, 1 << 62, 1 << 63, -(1 << 47), 0x1234_5678_9ABC_DEF0)


@dataclass(eq=False)
class Line:
    """`body`: the lines of a child or, of a line with no operation, a group of lines that make sense together."""

    thread: int
    operation: str
    arguments: "tuple[int | str | Line, ...]" = ()
    body: "list[Line]" = field(default_factory=list)


@dataclass(frozen=True)
class Script:
    name: str
    lines: tuple[Line, ...]
    race: bool = False

    def text(self) -> str:
        numbered = list(_flattened(self.lines))
        numbers = {id(line): number for number, line in enumerate(numbered)}

        def word(argument: "int | str | Line") -> str:
            if isinstance(argument, Line):  # its result; one that is no longer there has none
                return f"${numbers[id(argument)]}" if id(argument) in numbers else "-14"
            return str(argument) if isinstance(argument, str) or -PAGE < argument < PAGE else hex(argument)

        written = [
            " ".join((str(line.thread), line.operation, *map(word, (*_length(line), *line.arguments))))
            for line in numbered
        ]
        return "\n".join((f"script {self.name}{' race' * self.race}", *written, "done", ""))

    def without(self, gone: "frozenset[int]") -> "Script":
        """The same script without these of its lines, known by their identity."""
        return replace(self, lines=tuple(_kept(self.lines, gone)))

    def all_lines(self) -> list[Line]:
        """Groups and children before what is in them."""
        return list(_walked(self.lines))


def _flattened(lines: Iterable[Line]) -> Iterator[Line]:
    for line in lines:
        if line.operation:
            yield line
        yield from _flattened(line.body)


def _walked(lines: Iterable[Line]) -> Iterator[Line]:
    for line in lines:
        yield line
        if not any(
            inner.operation == "start" for inner in line.body
        ):  # who waits, and what frees him, belong together
            yield from _walked(line.body)


def _kept(lines: Iterable[Line], gone: frozenset[int]) -> Iterator[Line]:
    for line in lines:
        if id(line) not in gone:
            if line.body:
                body = list(_kept(line.body, gone))
                if len(body) != len(line.body) or any(a is not b for a, b in zip(body, line.body, strict=True)):
                    line = replace(line, body=body)
            yield line


def _length(line: Line) -> tuple[int, ...]:
    return (len(list(_flattened(line.body))),) if line.operation in CHILDREN else ()


CHILDREN = ("fork", "vfork", "clonevm")
ENDS = ("exit", "kill", "term", "segv", "exec")


class Writer:
    """Writes one script."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.race = self.random.random() < 0.25
        self.threads = self.random.choice((1, 1, 2, 3, THREADS)) if not self.race else THREADS
        self.in_child = False
        self.waits_no_more: set[int] = set()
        self.addresses: list[Line] = []  # whose results are addresses that the kernel chose
        # Not everything in every script, or nothing would be seen of what is rare.
        kinds: dict[Callable[[int], Line], float] = {
            self.map: 3,
            self.map_file: 2,
            self.unmap: 3,
            self.remap: 4,
            self.protect: 2,
            self.lock: 4,
            self.unlock: 1.5,
            self.advise: 4,
            self.advise_process: 1,
            self.attach_segment: 1,
            self.rare: 1,
            self.fill: 3,
            self.show: 8,
            self.print: 3,
            self.io: 2,
            self.ring: 0.7,
            self.refused_exec: 0.5,
            self.child: 2,
        }
        if not self.race:
            kinds |= {self.lock_all: 0.7, self.move_break: 2, self.blocked: 1.5, self.action: 1}
        self.weights = {kind: weight for kind, weight in kinds.items() if self.random.random() < 0.6}
        self.weights |= {self.show: 6, self.lock: 3}
        self.evil = self.random.choice((0, 0, 0.05, 0.2))

    def script(self) -> Script:
        random = self.random
        lines = []
        for thread in range(self.threads):
            if random.random() < 0.9:
                lines += self.prepared(0, thread)
        timer = random.random() < 0.2 and (self.race or self.blocked not in self.weights)
        if timer:  # not before the first lock, which may end by EINTR: a limit that is stated
            handler = Line(0, "action", (ALRM, HANDLE, random.choice((0, SA_RESTART))))
            interval = Line(0, "itimer", (random.choice((200, 700, 3000)),))
            lines.append(Line(0, "", body=[self.call(0, "mlock", SCRATCH, 1), handler, interval]))
        others = range(1 if self.race else 0, self.threads)
        lines += [self.line(random.choice(others)) for _ in range(random.randint(5, 45))]
        if timer:
            lines.append(Line(0, "itimer", (0,)))
        thread = 0 if self.race else random.randrange(self.threads)
        for shown in range(self.threads):
            lines.append(
                Line(thread, "show", (self.base(shown) + random.randrange(PAGES) * PAGE, random.randint(1, 8)))
            )
        lines.append(Line(thread, "end-" + random.choice(ENDS)))
        return Script(str(self.seed), tuple(lines), self.race)

    def prepared(self, thread: int, whose: int) -> list[Line]:
        base = self.base(whose)
        lines = [
            Line(thread, "call", ("mmap", base, PAGES * PAGE, READ | WRITE, PRIVATE | ANONYMOUS | FIXED, -1, 0)),
            Line(thread, "call", ("mlock", base, self.random.choice((PAGES, 4, 8)) * PAGE)),
            Line(thread, "fill", (base, self.random.choice((PAGES, PAGES, 4, 0)))),
        ]
        self.random.shuffle(lines)
        return lines if self.random.random() < 0.3 else sorted(lines, key=lambda line: line.operation)

    def line(self, thread: int) -> Line:
        kind = self.random.choices(list(self.weights), list(self.weights.values()))[0]
        return kind(thread)

    # -- words ------------------------------------------------------------------------------------------------------

    def base(self, thread: int) -> int:
        return ARENA + thread * OWN

    def address(self, thread: int) -> "int | Line":
        random = self.random
        if random.random() < self.evil:
            return random.choice(EVIL)
        if self.addresses and random.random() < 0.15 and not self.race:
            return random.choice(self.addresses)
        if not self.race and random.random() < 0.15:
            thread = random.randrange(self.threads)
        page = random.randrange(PAGES + 2) if random.random() < 0.8 else random.randrange(3 * PAGES)
        return self.base(thread) + page * PAGE + (random.choice((1, 8, PAGE - 1)) if random.random() < 0.03 else 0)

    def length(self, most: int = 10, *, near: bool = False) -> int:
        """`near`: none that reaches all that lies above, as madvise(2) does not mind holes."""
        random = self.random
        if random.random() < self.evil:
            return int(random.choice((0, -1, -PAGE, *((1 << 47, 1 << 63, (1 << 63) - 1) if not near else ()))))
        return random.randint(1, most) * PAGE - (random.choice((1, 100, PAGE - 1)) if random.random() < 0.05 else 0)

    def protection(self) -> int:
        protection: int = self.random.choice((3, 3, 3, 3, 1, 0, 7, 2))
        return protection

    def rubbish(self) -> int:
        """For the upper half of an argument that is an int to the kernel."""
        half: int = self.random.choice((0, 0, 0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xDEAD))
        return half << 32

    def call(self, thread: int, name: str, *arguments: "int | str | Line") -> Line:
        return Line(thread, "call", (name, *arguments))

    # -- memory -----------------------------------------------------------------------------------------------------

    def map(self, thread: int) -> Line:
        random = self.random
        flags = random.choice((PRIVATE, PRIVATE, PRIVATE, SHARED)) | ANONYMOUS
        flags |= random.choice((0, 0, LOCKED)) | random.choice((0, 0, POPULATE, NORESERVE))
        if random.random() < 0.15:
            line = self.call(thread, "mmap", 0, self.length(), self.protection(), flags, -1, 0)
            self.addresses.append(line)
            return line
        flags |= random.choice((FIXED, FIXED, FIXED, NOREPLACE, FIXED | NOREPLACE))
        return self.call(thread, "mmap", self.address(thread), self.length(), self.protection(), flags, -1, 0)

    def map_file(self, thread: int) -> Line:
        random = self.random
        flags = random.choice((PRIVATE, PRIVATE, SHARED)) | random.choice((0, 0, LOCKED, POPULATE)) | FIXED
        offset = random.randrange(14) * PAGE if not self.race else (1 + 3 * thread) * PAGE
        length = self.length() if not self.race else random.randint(1, 3) * PAGE
        return self.call(
            thread, "mmap", self.address(thread), length, self.protection(), flags,
            random.choice(("file", "file", "memfd", 999)), offset,
        )  # fmt: skip

    def unmap(self, thread: int) -> Line:
        return self.call(thread, "munmap", self.address(thread), self.length())

    def remap(self, thread: int) -> Line:
        random = self.random
        flags = random.choice((0, MAYMOVE, 3, 3, 3, 5, 7, 4, 2, 8)) | self.rubbish() * (random.random() < 0.1)
        old = self.length()
        new = random.choice((old, old, old, self.length(), self.length(20)))
        if random.random() < 0.05:
            old = 0
        line = self.call(thread, "mremap", self.address(thread), old, new, flags, self.address(thread))
        if flags in (MAYMOVE, 5):
            self.addresses.append(line)
        return line

    def protect(self, thread: int) -> Line:
        if self.random.random() < 0.1:
            return self.call(
                thread, "pkey_mprotect", self.address(thread), self.length(), self.protection(), self.rubbish() - 1
            )
        return self.call(thread, "mprotect", self.address(thread), self.length(), self.protection())

    def lock(self, thread: int) -> Line:
        if self.random.random() < 0.4:
            flags = self.random.choice((0, 1, 1, 1, 2)) | self.rubbish()
            return self.call(thread, "mlock2", self.address(thread), self.length(PAGES), flags)
        return self.call(thread, "mlock", self.address(thread), self.length(PAGES))

    def unlock(self, thread: int) -> Line:
        return self.call(thread, "munlock", self.address(thread), self.length())

    def lock_all(self, thread: int) -> Line:
        if self.random.random() < 0.4:
            return self.call(thread, "munlockall")
        return self.call(thread, "mlockall", self.random.choice((1, 2, 2, 3, 6, 7, 5, 4, 0, 8)) | self.rubbish())

    def advise(self, thread: int) -> Line:
        advice = self.random.choice(ADVICE) if self.random.random() < 0.7 else self.random.choice((4, 8, 24, 102, 9))
        advice = self.told_for_sure(advice)
        return self.call(thread, "madvise", self.address(thread), self.length(near=True), advice | self.rubbish())

    def told_for_sure(self, advice: int) -> int:
        """MADV_FREE of what a child has inherited may leave what was there, or zeros: both are right."""
        return 4 if advice == 8 and self.in_child else advice

    def advise_process(self, thread: int) -> Line:
        random = self.random
        at = thread * 256
        pairs = [(self.address(thread), self.length(3, near=True)) for _ in range(random.randint(1, 3))]
        pokes = [
            Line(thread, "poke", (at + 16 * number + 8 * part, value))
            for number, pair in enumerate(pairs)
            for part, value in enumerate(pair)
        ]
        call = self.call(
            thread, "process_madvise", random.choice(("self", "self", -10000, -10001, 999)), SCRATCH + at,
            len(pairs), self.told_for_sure(random.choice((4, 8, 20, 21, 24, 25, 102, 103, 3))) | self.rubbish(),
            random.choice((0, 0, 0, 1)),
        )  # fmt: skip
        return Line(thread, "", body=[*pokes, call])

    def move_break(self, thread: int) -> Line:
        random = self.random
        if random.random() < 0.2:
            return self.call(thread, "brk", random.choice((0, ARENA, 1 << 46, -1, "B-1", "B-4096")))
        to = random.choice((0, 1, PAGE, 3 * PAGE, 3 * PAGE + 5, 8 * PAGE, 16 * PAGE, 64 * PAGE))
        lines = [self.call(thread, "brk", f"B+{to}")]
        if to > PAGE:
            if random.random() < 0.5:
                lines.append(self.call(thread, "mlock", "B+0", self.length(8)))
            if random.random() < 0.2:  # a neighbour that looks like a part of the heap
                lines.append(
                    self.call(
                        thread, "mmap", f"B+{random.randrange(9) * PAGE}", PAGE, 3, 2 | ANONYMOUS | FIXED, -1, 0
                    )
                )
            lines.append(Line(thread, random.choice(("show", "fill")), (f"B+{random.randrange(4) * PAGE}", 4)))
        return Line(thread, "", body=lines)

    def attach_segment(self, thread: int) -> Line:
        if self.race or self.random.random() < 0.3:
            return self.call(thread, "shmdt", self.address(thread))
        return self.call(
            thread, "shmat", self.random.choice(("S", "S", "S", -1)), self.address(thread),
            self.random.choice((0, 0o40000, 0o40000, 0o20000, 0o60000, 0o10000, 0o50000, 0)) | self.rubbish(),
        )  # fmt: skip

    def rare(self, thread: int) -> Line:
        random = self.random
        address, length = self.address(thread), self.length()
        return random.choice(
            (
                self.call(thread, "mseal", address, PAGE, 0),
                self.call(thread, "msync", address, length, random.choice((1, 2, 4, 6, 5))),
                self.call(thread, "remap_file_pages", address, length, 0, random.randrange(8), 0),
                self.call(thread, "mincore", address, PAGE * 4, SCRATCH + 2048 + 64 * thread),
                self.call(thread, "prctl", 0x53564D41, 0, address, PAGE, 0),  # PR_SET_VMA_ANON_NAME
                self.call(thread, "prctl", 65, 0, 0, 0, 0),  # PR_SET_MDWE, with no flag,
            )
        )

    # -- content ----------------------------------------------------------------------------------------------------

    def fill(self, thread: int) -> Line:
        return Line(thread, "fill", (self.sane_address(thread), self.random.randint(1, 8)))

    def show(self, thread: int) -> Line:
        """Pages before the witness, most often with a call that may release them, and what became of them."""
        random = self.random
        address, pages = self.sane_address(thread), random.randint(1, 6)
        if random.random() < 0.2:
            return Line(thread, "show", (address, pages))
        between = [
            random.choice((self.unmap, self.map, self.remap, self.advise, self.protect, self.lock, self.unlock))(
                thread
            )
            for _ in range(random.choice((1, 1, 2, 3)))
        ]
        for line in between:
            if random.random() < 0.8 and line.operation == "call" and line.arguments[1] not in EVIL:
                near = address + random.choice((0, 0, 1, 2, -1)) * PAGE
                line.arguments = (line.arguments[0], near, *line.arguments[2:])
        return Line(thread, "", body=[Line(thread, "show", (address, pages)), *between, Line(thread, "look")])

    def print(self, thread: int) -> Line:
        if self.random.random() < 0.5:
            return Line(thread, "flags", (self.base(thread), 3 * PAGES))
        return Line(thread, "print", (self.sane_address(thread), self.random.randint(1, 10)))

    def sane_address(self, thread: int) -> int:
        if not self.race and self.random.random() < 0.15:
            thread = self.random.randrange(self.threads)
        return self.base(thread) + self.random.randrange(PAGES) * PAGE

    # -- input and output -------------------------------------------------------------------------------------------

    def io(self, thread: int) -> Line:
        random = self.random
        address = self.address(thread)
        length = random.choice((1, 100, PAGE, PAGE, 2 * PAGE, 3 * PAGE))
        offset = random.randrange(14) * PAGE if not self.race else (1 + 3 * thread) * PAGE
        if self.race:
            length = min(length, PAGE)
        own = [
            self.call(thread, "pread64", "file", address, length, offset),
            self.call(thread, "pwrite64", "file", address, length, offset),
            self.call(thread, "pread64", "memfd", address, length, offset),
            self.call(thread, "pwrite64", "memfd", address, length, offset),
            self.iovec(thread, "process_vm_readv", f"T{thread}"),
            self.iovec(thread, "process_vm_writev", f"T{thread}"),
        ]
        if not self.race:
            own += [
                self.call(thread, "sendto", "socket_a", address, min(length, PAGE), 0x40, 0, 0),
                self.call(thread, "recvfrom", "socket_b", address, length, 0x40, 0, 0),
                self.call(thread, "ftruncate", "file", random.choice((16, 16, 16, 4, 20)) * PAGE),
            ]
        return random.choice(own)

    def iovec(self, thread: int, name: str, pid: str) -> Line:
        at = thread * 256
        values = (self.address(thread), PAGE, self.address(thread), PAGE)
        pokes = [Line(thread, "poke", (at + 8 * number, value)) for number, value in enumerate(values)]
        call = self.call(thread, name, pid, SCRATCH + at, 1, SCRATCH + at + 16, 1, 0)
        return Line(thread, "", body=[*pokes, call])

    def ring(self, thread: int) -> Line:
        """io_uring's READ, WRITE, MADVISE (22, 23, 25), and native AIO's."""
        random = self.random
        address = self.address(thread)
        offset = random.randrange(14) * PAGE if not self.race else (1 + 3 * thread) * PAGE
        if random.random() < 0.4:
            return Line(
                thread, "aio", (random.choice((0, 1)), random.choice(("file", "memfd")), address, PAGE, offset)
            )
        if random.random() < 0.2:
            # The end of a ring whose work a worker has done interrupts the thread's next wait with EINTR, sometimes.
            self.waits_no_more.add(thread)
            return Line(thread, "uring", (25, -1, address, PAGE, 0, random.choice((0, 3, 4, 8, 16))))
        return Line(thread, "uring", (random.choice((22, 23)), "file", address, PAGE, offset, 0))

    def refused_exec(self, thread: int) -> Line:
        return Line(thread, "noexec", (self.random.randrange(3),))

    # -- children ---------------------------------------------------------------------------------------------------

    def child(self, thread: int) -> Line:
        random = self.random
        if self.in_child:
            return self.fill(thread)
        # In a race, what others show to their witnesses would be copied by their next write after a fork.
        kind = random.choice(("fork", "fork", "fork", "vfork", "clonevm") if not self.race else ("vfork", "clonevm"))
        self.in_child = True
        kinds: tuple[Callable[[int], Line], ...] = (
            self.show,
            self.show,
            self.unmap,
            self.remap,
            self.map,
            self.advise,
            self.fill,
            self.print,
        )
        kinds += (self.unlock, self.lock, self.advise_process, self.io, self.refused_exec, self.protect)
        body = [random.choice(kinds)(thread) for _ in range(random.choice((0, 1, 2, 4)))]
        body.append(Line(thread, "show", (self.sane_address(thread), random.randint(1, 6))))
        killed = random.random() < 0.15 and kind != "vfork"
        end = "pause" if killed else random.choice(("exit", "kill", "term", "exec", "exec", "thread"))
        if kind != "fork" and end in ("segv", "term"):
            end = "kill"  # signal actions are the child's own, and its handlers must not run on the parent's stack
        body.append(Line(thread, f"end-{end}"))
        self.in_child = False
        return Line(thread, kind, (int(killed),), body=body)

    # -- signals, and calls that wait -------------------------------------------------------------------------------

    def action(self, thread: int) -> Line:
        return Line(thread, "action", (*self.some_action(),))

    def some_action(self) -> tuple[int, int, int]:
        random = self.random
        number = random.choice((USR1, USR2, WINCH))
        return number, random.choice((IGNORE, HANDLE)), random.choice((0, SA_RESTART, SA_NODEFER))

    def blocked(self, thread: int) -> Line:
        """A thread waits in a call. Others are at work meanwhile, and signals come. In the end it is freed."""
        if self.threads == 1 or self.in_child:
            return self.fill(thread)
        random = self.random
        waiter = random.randrange(1, self.threads)
        if waiter in self.waits_no_more:
            return self.fill(waiter)
        other = random.choice([one for one in range(self.threads) if one != waiter])
        at = 1024 + waiter * 128  # of the scratch page: a timespec or timeval, a pollfd and a signal set
        number, kind, flags = self.some_action()
        signals = random.choice((0, 1, 1, 2, 3))
        # A handler ends each call that has a timeout, SA_RESTART or not.
        timeout = random.choice((60, 120, 200)) if kind == IGNORE or not signals else 15000
        pokes, call, freed, lasts = self.waiting_call(waiter, other, at, timeout)
        meanwhile: list[Line] = []
        for _ in range(random.randint(0, 3)):
            meanwhile.append(random.choice((self.fill, self.unmap, self.lock, self.print))(other))
        for _ in range(signals):
            meanwhile.append(Line(other, "signal", (waiter, number)))
        random.shuffle(meanwhile)
        call += (0,) * (7 - len(call)) + ((lasts,) if lasts else ())
        return Line(
            other, "", body=[
                Line(other, "action", (number, kind, flags)), *pokes, Line(waiter, "start", call), *meanwhile, *freed,
                Line(waiter, "join"), Line(other, "drain", ("event",)),
            ],
        )  # fmt: skip

    def waiting_call(
        self, waiter: int, other: int, at: int, timeout: int
    ) -> "tuple[list[Line], tuple[int | str | Line, ...], list[Line], int]":
        """What is written before, the call, what frees it, and how long it lasts if nothing does."""
        random = self.random
        buffer = self.base(waiter) + (2 * PAGES) * PAGE
        room = self.call(other, "mmap", buffer, 64 * PAGE, 3, PRIVATE | ANONYMOUS | FIXED, -1, 0)
        nanoseconds = [
            Line(other, "poke", (at, timeout // 1000)),
            Line(other, "poke", (at + 8, timeout % 1000 * 1_000_000)),
        ]
        microseconds = [
            Line(other, "poke", (at, timeout // 1000)),
            Line(other, "poke", (at + 8, timeout % 1000 * 1000)),
        ]
        pollfd = [Line(other, "poke", (at + 16, 206 | 1 << 32))]  # the eventfd, POLLIN
        signals = [Line(other, "poke", (at + 24, 1 << 33))]
        where = SCRATCH + at
        fill = Line(other, "fill", (buffer + 32 * PAGE, 32))
        empty = Line(other, "drain", ("pipe_r",))
        write = self.call(other, "write", "pipe_w", buffer + 32 * PAGE, PAGE)
        read = self.call(other, "read", "pipe_r", buffer + 32 * PAGE, 16 * PAGE)
        options = {
            "read": ([room, fill, empty], ("read", "pipe_r", buffer, PAGE), [write], 0),
            "write": ([room, fill, empty], ("write", "pipe_w", buffer, 32 * PAGE), [read], 0),
            "recv": (
                [room, *microseconds, Line(other, "drain", ("socket_b",)),
                 self.call(other, "setsockopt", "socket_b", 1, 20, where, 16)],
                ("recvfrom", "socket_b", buffer, PAGE, 0, 0, 0), [], 0,
            ),
            "recv-all": (
                [room, fill, Line(other, "drain", ("socket_b",))],
                ("recvfrom", "socket_b", buffer, 2 * PAGE, 0x100, 0, 0),
                [self.call(other, "sendto", "socket_a", buffer + 32 * PAGE, PAGE, 0x40, 0, 0)] * 2, 0,
            ),
            "poll": (pollfd, ("poll", where + 16, 1, timeout), [], timeout),
            "ppoll": ([*pollfd, *nanoseconds], ("ppoll", where + 16, 1, where, 0, 8), [], timeout),
            "select": (microseconds, ("select", 0, 0, 0, 0, where), [], timeout),
            "pselect": (nanoseconds, ("pselect6", 0, 0, 0, 0, where, 0), [], timeout),
            "epoll": ([], ("epoll_wait", "epoll", where + 32, 1, timeout), [], timeout),
            "nanosleep": (nanoseconds, ("nanosleep", where, 0), [], timeout),
            "clock_nanosleep": (nanoseconds, ("clock_nanosleep", 1, 0, where, 0), [], timeout),
            "futex": (nanoseconds, ("futex", SCRATCH + 4000, 0, 0, where, 0, 0), [], timeout),
            "sigtimedwait": ([*signals, *nanoseconds], ("rt_sigtimedwait", where + 24, 0, where, 8), [], timeout),
            "poll-freed": (
                pollfd, ("poll", where + 16, 1, 20000),
                [Line(other, "poke", (at + 40, 1)), self.call(other, "write", "event", where + 40, 8)], 0,
            ),
        }  # fmt: skip
        return options[random.choice(list(options))]


def script(seed: int) -> Script:
    return Writer(seed).script()


def combined(scripts: Sequence[Script]) -> str:
    return "".join(script.text() for script in scripts)

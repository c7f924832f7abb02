# SPDX-License-Identifier: MIT
"""What runs in a guest: it gets the machine ready, runs what the host asks for, and has its memory searched.

One JSON object a line goes over the virtio port, each with the `id` of what it belongs to:

    guest: {"hello": {...}}                                 ready; what the guest is
    host:  {"id": 1, "case": "W1-whole", "carrier": {"name": ..., "prefix": [...], "limits": {...},
            "late": false}}
    guest: {"id": 1, "search": [second, ...], "patient": false}  stop me and look for these words, now or soon
    host:  {"id": 1, "found": {second: {page: pairs}}}
    guest: {"id": 1, "result": {...}}
    host:  {"id": 2, "call": "module:function", "arguments": {...}}  any other piece of work, found by its name
    guest: {"id": 2, "returned": ...} or {"id": 2, "raised": "..."}
    host:  {"end": true}
"""

import json
import os
import platform
import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from mlockwipe.contract.carrier import Carrier
from mlockwipe.contract.case import KEPT, WIPED, Case
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.judge import judge_by
from mlockwipe.contract.pattern import OWN_WORDS
from mlockwipe.contract.program import PAGES
from mlockwipe.contract.result import DAMAGED, LEAKED, record
from mlockwipe.linux.page_batches import drain_page_batches
from mlockwipe.linux.physical import Frames, mapped
from mlockwipe_lab.matrix.nursery import Nursery
from mlockwipe_lab.vm.names import PORT

A_MOMENT = 0.05  # seconds: what waits for the references in another CPU's batches is zeroed by then
SETTLE = 0.15  # seconds after the last process of a case is gone: pages freed by another CPU have arrived by then
CASE_TIMEOUT = 180.0  # seconds: an emulated CPU is slow
MANY = 64  # places of a leak that are told one by one

Message = dict[str, Any]


class Port:
    """The guest's end of the virtio port; answers reach the thread that asked."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._answers: dict[int, queue.SimpleQueue[Message]] = {}

    def send(self, message: Message) -> None:
        with self._lock:
            data = json.dumps(message).encode() + b"\n"
            while data:
                data = data[os.write(self._fd, data) :]

    def ask(self, number: int, message: Message) -> Message:
        """Send a message about piece of work `number` and wait for the answer."""
        answer = self._answers[number] = queue.SimpleQueue()
        self.send({"id": number, **message})
        return answer.get()

    def serve(self, start: Callable[[Message], None]) -> None:
        """Hand out what arrives until the host says that it was all."""
        with os.fdopen(os.dup(self._fd), "rb") as lines:
            for line in lines:
                message: Message = json.loads(line)
                if "end" in message:
                    return
                if "found" in message:
                    self._answers.pop(message["id"]).put(message)
                else:
                    start(message)


class RamSearch:
    """Sees the pages of one run of a case by a search of all memory: the `Eyes` of `mlockwipe.contract.judge`."""

    write_end = -1

    def __init__(self, case: Case, late: bool, ask: Callable[[Message], Message], frames: Frames) -> None:
        self._case = case
        self._late = late
        self._ask = ask
        self._frames = frames
        self._second, self._third = secrets.randbits(64), secrets.randbits(64)
        words = [self._second, self._third] if case.expected == WIPED else [self._second]
        self.environment: Mapping[str, str] = {OWN_WORDS: ",".join(f"{word:x}" for word in words)}
        self.alive: dict[int, tuple[int, str]] = {}  # by frame: the pairs in it and what it was
        self.gone: dict[int, tuple[int, str]] = {}
        self.lost = False  # of what was left alone, too little is there
        self._held: set[int] = set()
        self._shown = 0

    def look(self) -> None:
        found = self._released()
        if found and self._late and self._case.expected == WIPED:
            drain_page_batches()
            time.sleep(A_MOMENT)
            still = self._search()
            found = {frame: told for frame, told in found.items() if frame in still}
        self.alive.update(found)

    def look_at_last(self) -> None:
        time.sleep(SETTLE)
        self.gone = {frame: self._describe(frame, hits) for frame, hits in self._search(patient=True).items()}

    def verdict(self, case: Case, shown: int) -> tuple[str, str | None]:
        self._shown = shown
        if case.expected == WIPED:
            return self._wiped()
        found = self._held | self.alive.keys() | self.gone.keys()
        # Others use what is free, so some of what was left alone is overwritten before it is searched for.
        self.lost = len(found) * 2 < min(shown, PAGES)  # some cases show the same pages again and again
        if self.lost:
            return DAMAGED, f"{len(found)} of {shown} pages are still there"
        return KEPT, None

    @property
    def counts(self) -> tuple[int, int]:
        dirty = max(len(self.alive), len(self.gone))
        return max(self._shown, dirty), dirty

    def _wiped(self) -> tuple[str, str | None]:
        return (LEAKED if self.alive or self.gone else WIPED), None

    def _released(self) -> dict[int, tuple[int, str]]:
        """The frames that no process of the case maps any more."""
        pairs = self._search()
        mine = self._of_the_case(pairs)
        self._held.update(mine)
        return {frame: self._describe(frame, hits) for frame, hits in pairs.items() if frame not in mine}

    def _search(self, *, patient: bool = False) -> dict[int, int]:
        """The pairs in every frame that count: those that were marked, where some are to be."""
        question = {"search": [str(self._second), str(self._third)], "patient": patient}
        found = self._ask(question)["found"]
        seconds, thirds = (
            {int(frame): int(pairs) for frame, pairs in found[str(word)].items()}
            for word in (self._second, self._third)
        )
        if self._case.expected == WIPED and self._case.shows and self._case.needs_ram_scan is None:
            return {frame: pairs + seconds.get(frame, 0) for frame, pairs in thirds.items()}
        return {frame: seconds.get(frame, 0) + thirds.get(frame, 0) for frame in {*seconds, *thirds}}

    def _of_the_case(self, frames: Collection[int]) -> set[int]:
        """Those that a process still maps: they are not released. What only the carrier's processes map is."""
        if not any(self._frames.mappings(frame) for frame in frames):
            return set()
        found: set[int] = set()
        ours = os.getsid(0)
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                pid = int(process.name) if process.name.isdecimal() else 0
                if os.getsid(pid) != ours and not (process / "comm").read_text().startswith("mlockwipe"):
                    found.update(mapped(pid, frames))
        return found

    def _describe(self, frame: int, pairs: int) -> tuple[int, str]:
        return pairs, self._frames.kind(frame)


def _places(frames: Mapping[int, tuple[int, str]]) -> Message:
    return {
        "pages": len(frames),
        "places": [
            {"frame": frame, "pairs": pairs, "kind": kind} for frame, (pairs, kind) in sorted(frames.items())[:MANY]
        ],
    }


class Guest:
    """The pieces of work that the host asks for, each in a thread of its own."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._frames = Frames()
        self._cases = {case.name: case for case in all_cases()}
        self._lock = threading.Lock()
        self._nurseries: dict[tuple[str, ...], Nursery] = {}

    def start(self, message: Message) -> None:
        work = self._judge if "case" in message else self._call
        threading.Thread(target=work, args=(message,), daemon=True).start()

    def _judge(self, message: Message) -> None:
        number, case = message["id"], self._cases[message["case"]]
        told = message["carrier"]
        prefix: list[str] = told["prefix"]
        carrier = Carrier(told["name"], lambda command: [*prefix, *command], told["limits"])
        eyes = RamSearch(case, told["late"], lambda question: self._port.ask(number, question), self._frames)
        began = time.monotonic()
        result = judge_by(eyes, case, carrier, timeout=CASE_TIMEOUT, start=self._nursery(prefix).bear)
        self._port.send(
            {
                "id": number,
                "result": record(result),
                "alive": _places(eyes.alive),
                "gone": _places(eyes.gone),
                "lost": eyes.lost,
                "seconds": round(time.monotonic() - began, 2),
            }
        )

    def _nursery(self, prefix: Sequence[str]) -> Nursery:
        key = tuple(prefix)
        with self._lock:
            if key not in self._nurseries:
                self._nurseries[key] = Nursery(prefix)
            return self._nurseries[key]

    def _call(self, message: Message) -> None:
        number = message["id"]
        try:
            module, _, name = message["call"].partition(":")
            returned = getattr(import_module(module), name)(**message["arguments"])
            self._port.send({"id": number, "returned": returned})
        except Exception as error:  # the host must hear of it
            self._port.send({"id": number, "raised": repr(error)})


# Getting ready


def prepare() -> None:
    """Make of the bare guest what the cases need. It is this guest's own: nothing of it reaches the host."""
    _module("virtio_blk")
    with suppress(OSError):  # a kernel without memory control groups; the case says so
        Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    _run("mkfs.ext4", "-q", "-F", "/dev/vda")
    _run("mount", "/dev/vda", "/var/tmp")  # direct I/O needs a disk
    os.chmod("/var/tmp", 0o1777)
    _run("mkswap", "/dev/vdb")
    _run("swapon", "/dev/vdb")
    for path, value in (
        ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
        ("/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled", "madvise"),
        ("/sys/kernel/mm/ksm/sleep_millisecs", "20"),
        ("/sys/kernel/mm/ksm/pages_to_scan", "1000"),
        ("/sys/kernel/mm/ksm/run", "1"),
        ("/proc/sys/vm/max_map_count", "4096"),  # the cases that reach it take half a minute to reach 65530
    ):
        with suppress(FileNotFoundError):  # a kernel without it; the case says so
            Path(path).write_text(value)
    _run("ip", "link", "set", "lo", "up")


def has_boot_option() -> bool:
    """Whether the kernel counts what it wipes."""
    return "\ninit_mlocked_wiped " in Path("/proc/vmstat").read_text()


def load_module(path: str, parameters: Sequence[str]) -> None:
    """Raises OSError with what the kernel said."""
    done = subprocess.run(["insmod", path, *parameters], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())


def _module(name: str) -> None:
    with suppress(subprocess.CalledProcessError):  # built in
        _run("modprobe", name)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def facts() -> Mapping[str, object]:
    return {
        "kernel": platform.release(),
        "version": platform.version(),
        "command line": Path("/proc/cmdline").read_text().strip(),
        "python": platform.python_version(),
    }


def _open_port() -> int:
    (name,) = [name for name in Path("/sys/class/virtio-ports").glob("*/name") if name.read_text().strip() == PORT]
    return os.open(f"/dev/{name.parent.name}", os.O_RDWR | os.O_CLOEXEC)


def main() -> None:
    port = Port(_open_port())
    prepare()
    guest = Guest(port)
    port.send({"hello": facts()})
    port.serve(guest.start)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""The program that runs in a guest: it gets the machine ready and calls the functions that the host asks for.

One JSON object a line goes over the virtio port, each with the `id` of the call that it belongs to:

    guest: {"hello": {...}}                                          ready; what the guest is
    host:  {"id": 1, "call": "module:function", "arguments": {...}}
    guest: {"id": 1, "asks": ...}                                    by a function that has the parameter `ask`
    host:  {"id": 1, "answer": ...}
    guest: {"id": 1, "returned": ...} or {"id": 1, "raised": "..."}
    host:  {"end": true}
"""

import inspect
import json
import os
import platform
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from mlockwipe_lab.vm.names import PORT

Message = dict[str, Any]


class Port:
    """The guest's end of the virtio port; answers reach the thread that asked."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._answers: dict[int, queue.SimpleQueue[Any]] = {}

    def send(self, message: Message) -> None:
        with self._lock:
            data = json.dumps(message).encode() + b"\n"
            while data:
                data = data[os.write(self._fd, data) :]

    def ask(self, number: int, question: object) -> Any:
        """What the host answers to a question of call `number`."""
        answer = self._answers[number] = queue.SimpleQueue()
        self.send({"id": number, "asks": question})
        return answer.get()

    def serve(self, start: Callable[[Message], None]) -> None:
        """Hand out what arrives until the host says that it was all."""
        with os.fdopen(os.dup(self._fd), "rb") as lines:
            for line in lines:
                message: Message = json.loads(line)
                if "end" in message:
                    return
                if "answer" in message:
                    self._answers.pop(message["id"]).put(message["answer"])
                else:
                    start(message)


def work(port: Port, message: Message) -> None:
    """Do one call."""
    number, arguments = message["id"], message["arguments"]
    try:
        module, _, name = message["call"].partition(":")
        function = getattr(import_module(module), name)
        if "ask" in inspect.signature(function).parameters:
            arguments["ask"] = lambda question: port.ask(number, question)
        port.send({"id": number, "returned": function(**arguments)})
    except Exception as error:  # the host must hear of it
        port.send({"id": number, "raised": f"{type(error).__name__}: {error}"})


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
    port.send({"hello": facts()})
    port.serve(lambda message: threading.Thread(target=work, args=(port, message), daemon=True).start())


if __name__ == "__main__":
    main()

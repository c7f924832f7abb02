# SPDX-License-Identifier: MIT
"""A virtual machine: a kernel, this machine's root file system read-only, and one program that runs in it.

virtme-ng makes the QEMU command line and the guest's init. The guest sees the host's files over 9p, with
tmpfs overlays where programs write, so it runs the very Python and the very mlockwipe that run here. Two
disks that are gone with the machine are its /dev/vda (for direct I/O) and /dev/vdb (for swap). Host and guest
talk through a virtio port, one JSON object a line.
"""

import json
import math
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

import mlockwipe
import mlockwipe_lab
from mlockwipe.errors import Refused
from mlockwipe.interruption import held, let_in
from mlockwipe_lab.vm.failures import BOOT_SILENCE, GuestFailed, boot_again
from mlockwipe_lab.vm.kernels import Kernel
from mlockwipe_lab.vm.names import CACHED, PORT
from mlockwipe_lab.vm.ram import Ram

MEMORY = 640  # MiB: what is searched, hundreds of times
CPUS = 2
BOOT_TIMEOUT = {"kvm": 60.0, "tcg": 300.0}  # seconds
GUEST = (sys.executable, "-P", "-m", "mlockwipe_lab.vm.guest")
_CONNECTIONS = 3  # to QEMU's monitor, that are tried
_DISK = 256 << 20  # bytes, sparse
_BIN = Path(sys.executable).parent
_PATH = f"{_BIN}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

Message = dict[str, Any]


class CallFailed(GuestFailed):
    """The guest is well, but what was called in it raised this."""


def check_tools() -> None:
    """Raises Refused when a program that a machine needs is not there."""
    missing = [
        package
        for tool, package in (
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("depmod", "kmod"),
            ("busybox", "busybox-static"),
            ("mkfs.ext4", "e2fsprogs"),
            ("mkswap", "util-linux"),
        )
        if shutil.which(tool, path=_PATH) is None
    ]
    if missing:
        raise Refused(f"the lab needs {', '.join(missing)}: run `make lab-setup`, or apt-get install them")
    if Path(sys.prefix).is_relative_to("/var/tmp"):
        raise Refused(f"a guest has a /var/tmp of its own and can't see {sys.prefix}: install mlockwipe elsewhere")
    if shutil.which("vng", path=_PATH) is None:
        raise Refused("the lab needs virtme-ng: run `make lab-setup`, or pip install virtme-ng")


class Machine:
    """A running guest. Use `boot`, which ends it whatever happens."""

    def __init__(self, place: Path, process: "subprocess.Popen[bytes]", acceleration: str) -> None:
        self.acceleration = acceleration
        self.hello: Message = {}  # what the guest is, and how many `boots` it took
        self._place = place
        self._process = process
        self._qmp: QEMUMonitorProtocol | None = None
        self._ram: Ram | None = None
        self._port = socket.socket(socket.AF_UNIX)
        self._unread = b""

    # Talk

    def _send(self, message: Message) -> None:
        try:
            self._port.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self.failed("the guest is gone") from error

    def receive(self, timeout: float, silence: float = math.inf) -> Message:
        """The next message of the guest. `timeout`: seconds. `silence`: seconds after which a guest that says nothing
        on its console either is given up before. Raises GuestFailed.
        """
        deadline = time.monotonic() + timeout
        while b"\n" not in self._unread:
            self._await(self._port, deadline, silence)
            try:
                more = self._port.recv(1 << 16)
            except OSError:
                more = b""
            if not more:
                raise self._gone()
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        message: Message = json.loads(line)
        return message

    def _await(self, end: socket.socket, deadline: float, silence: float) -> None:
        """Wait until there is something to read."""
        began = time.monotonic()
        readable = select.poll()
        readable.register(end, select.POLLIN)
        while not readable.poll(1000 * max(0.01, min(1.0, deadline - time.monotonic()))):
            if self._process.poll() is not None:
                raise self._gone()
            if time.monotonic() >= deadline:
                raise self.failed(f"the guest says nothing for {time.monotonic() - began:.0f} s")
            if time.time() - (self._place / "console").stat().st_mtime > silence:
                raise self.failed(f"the guest hangs: its console is silent for {silence:.0f} s")

    def _gone(self) -> GuestFailed:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)  # for the end of its console
        return self.failed("the guest is gone")

    def begin(self, number: int, function: str, **arguments: object) -> None:
        """Have 'module:function' called in the guest; what it asks and what it returns comes by `receive`."""
        self._send({"id": number, "call": function, "arguments": arguments})

    def answer(self, number: int, answer: object) -> None:
        """To what call `number` has asked."""
        self._send({"id": number, "answer": answer})

    def returned(self, message: Message) -> Any:
        """What a call has returned. Raises CallFailed."""
        if "raised" in message:
            raise CallFailed(message["raised"], self.console)
        return message["returned"]

    def call(
        self,
        function: str,
        timeout: float = 120.0,
        answer: Callable[[Any], object] = lambda asks: None,
        **arguments: object,
    ) -> Any:
        """What 'module:function' returns in the guest, while nothing else is called there. `timeout`: in seconds, of
        each message. `answer`: to what the function asks. Raises GuestFailed.
        """
        self.begin(0, function, **arguments)
        while "asks" in (message := self.receive(timeout)):
            self.answer(0, answer(message["asks"]))
        return self.returned(message)

    # Look

    @contextmanager
    def stopped(self) -> Iterator[Ram]:
        """The machine's memory while nothing in it moves."""
        self.monitor("stop")
        try:
            if self._ram is None:
                self._ram = Ram(self._place / "ram")
            yield self._ram
        finally:
            self.monitor("cont")

    def monitor(self, command: str, **arguments: object) -> object:
        """What QEMU answers to a QMP command. Raises GuestFailed."""
        if self._qmp is None:
            raise self.failed("the machine is not up")
        try:
            return self._qmp.cmd(command, **arguments)
        except (QMPError, OSError, TimeoutError) as error:
            raise self.failed(f"QEMU refuses '{command}' ({error})") from error

    @property
    def console(self) -> str:
        return (self._place / "console").read_bytes().decode(errors="replace").replace("\r", "")

    def failed(self, what: str) -> GuestFailed:
        return GuestFailed(what, self.console)

    # Begin and end

    def connect(self, timeout: float) -> None:
        """Wait until the guest's program has said that it is there."""
        deadline = time.monotonic() + timeout
        self._reach(self._port, "port", deadline)
        self._qmp = self._connect_monitor(deadline)
        hello = self.receive(max(1.0, deadline - time.monotonic()), BOOT_SILENCE)
        if "hello" not in hello:
            raise self.failed(f"the guest began with {hello}")
        self.hello = hello["hello"]

    def _connect_monitor(self, deadline: float) -> QEMUMonitorProtocol:
        """Raises GuestFailed.

        An event of the boot may reach a monitor that is being connected before its greeting does, which is no QMP
        (monitor_qapi_event_emit in monitor/monitor.c, QEMU 7.2: seen once in some hundred boots). A second connection
        is greeted properly.
        """
        for attempts_left in reversed(range(_CONNECTIONS)):
            end = socket.socket(socket.AF_UNIX)
            self._reach(end, "qmp", deadline)
            self._await(end, deadline, BOOT_SILENCE)  # for a greeting, for which the library would wait without end
            monitor = QEMUMonitorProtocol(end)
            monitor.settimeout(60)
            try:
                monitor.connect()
                return monitor
            except (QMPError, OSError) as error:
                end.close()
                if not attempts_left:
                    raise self.failed(f"QEMU's monitor can't be reached ({error})") from error
        raise AssertionError

    def _reach(self, end: socket.socket, name: str, deadline: float) -> None:
        while True:
            try:
                end.connect(str(self._place / name))
                return
            except OSError:
                if self._process.poll() is not None:
                    raise self.failed("QEMU ended at once") from None
                if time.monotonic() > deadline:
                    raise self.failed("QEMU does not come up") from None
                time.sleep(0.05)

    def wait(self, timeout: float) -> None:
        """Wait for the guest to power off by itself. Raises GuestFailed."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failed(f"the guest does not end in {timeout:.0f} s") from None
        if status:
            raise self.failed(f"QEMU ended with {status}")

    def end(self) -> None:
        if self._qmp is not None:
            with suppress(Exception):
                self._qmp.close()
        self._port.close()
        if self._ram is not None:
            self._ram.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def boot(
    kernel: Kernel,
    program: Sequence[str] = GUEST,
    *,
    append: Sequence[str] = (),
    memory: int = MEMORY,
    cpus: int = CPUS,
) -> Iterator[Machine]:
    """A machine in which `program` (an argv) runs as root and has said hello; it is ended with the block.

    `append`: more of the kernel's command line. `memory`: in MiB, less than 2048. Raises Refused and
    GuestFailed.
    """
    check_tools()
    accelerated = acceleration(kernel)
    with ExitStack() as until_its_end:

        def connected(boots: int) -> Machine:
            until_its_end.close()  # of the boot before
            machine = until_its_end.enter_context(_running(kernel, program, append, memory, cpus, accelerated))
            machine.connect(BOOT_TIMEOUT[accelerated])
            machine.hello["boots"] = boots
            return machine

        yield boot_again(connected)


_found: dict[str, str] = {}


def acceleration(kernel: Kernel) -> str:
    """'kvm' where a guest of this kernel comes up with it, else 'tcg'.

    /dev/kvm may be there and not work: inside a virtual machine without nesting a guest just hangs.
    """
    if "" not in _found:
        _found[""] = "tcg"
        if os.access("/dev/kvm", os.R_OK | os.W_OK):
            with suppress(GuestFailed), _running(kernel, ["/bin/true"], (), 512, 1, "kvm") as machine:
                machine.wait(20)
                _found[""] = "kvm"
    return _found[""]


def assume_acceleration(found: str) -> None:
    """Take what another process has found."""
    _found[""] = found


@contextmanager
def _running(
    kernel: Kernel, program: Sequence[str], append: Sequence[str], memory: int, cpus: int, acceleration: str
) -> Iterator[Machine]:
    """A machine that was started, and its directory; neither outlives the block."""
    with held(), tempfile.TemporaryDirectory(prefix="mlockwipe-lab-", dir=_room(memory)) as place:
        machine = _start(Path(place), kernel, program, append, memory, cpus, acceleration)
        try:
            with let_in():
                yield machine
        finally:
            machine.end()


def _start(
    place: Path,
    kernel: Kernel,
    program: Sequence[str],
    append: Sequence[str],
    memory: int,
    cpus: int,
    acceleration: str,
) -> Machine:
    for disk in ("disk", "swap"):
        with (place / disk).open("wb") as file:
            file.truncate(_DISK)
    qemu = [
        f"-object memory-backend-file,id=ram,share=on,size={memory}M,mem-path={place}/ram",
        "-machine memory-backend=ram",
        f"-qmp unix:{place}/qmp,server=on,wait=off",
        f"-chardev socket,id=lab,path={place}/port,server=on,wait=off",
        "-device virtio-serial-pci,id=lab",
        f"-device virtserialport,bus=lab.0,chardev=lab,name={PORT}",
        f"-fsdev local,id={CACHED},path=/,security_model=none,readonly=on,multidevs=remap",
        f"-device virtio-9p-pci,fsdev={CACHED},mount_tag={CACHED}",
        *(
            part
            for disk in ("disk", "swap")
            for part in (
                f"-drive if=none,id={disk},file={place}/{disk},format=raw,cache=unsafe",
                f"-device virtio-blk-pci,drive={disk}",
            )
        ),
    ]
    argv = ["vng", "--run", str(kernel.image), "--verbose", "--force-9p", "--disable-microvm", "--user", "root"]
    argv += ["--memory", f"{memory}M", "--cpus", str(cpus), "--name", "mlockwipe-lab", "--cwd", "/"]
    argv += ["--disable-kvm"] if acceleration == "tcg" else []
    argv += [f"--append={option}" for option in append]
    argv += [f"--qemu-opts={option}" for option in qemu]
    argv += ["--exec", f"{_share_with_cache()} && exec {shlex.join(program)}"]
    with (place / "console").open("wb") as console:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd=place,
            env={**os.environ, "PATH": _PATH, "TMPDIR": str(place)},
            start_new_session=True,
        )
    return Machine(place, process, acceleration)


def _share_with_cache() -> str:
    """What the guest's shell does to see Python and mlockwipe through the share that is cached."""
    place, options = "/run/cached", "ro,version=9p2000.L,trans=virtio,cache=loose,msize=524288"
    steps = [f"mkdir {place}", f"mount -t 9p -o {options} {CACHED} {place}"]
    ours = (str(Path(package.__path__[0]).parent) for package in (mlockwipe, mlockwipe_lab))
    needed = {sysconfig.get_path("stdlib"), sys.prefix, *ours}
    for path in map(shlex.quote, sorted(needed)):
        steps += [f"mkdir -p {path}", f"mount --bind {place}{path} {path}"]
    return " && ".join(steps)


def _room(memory: int) -> str | None:
    """A directory for the guest's memory: in memory where there is room for it, else on a disk."""
    needed = memory << 20
    for place in ("/dev/shm", tempfile.gettempdir()):
        with suppress(OSError):
            if os.access(place, os.W_OK) and shutil.disk_usage(place).free > needed + (512 << 20):
                return place
    raise Refused(f"the lab needs {memory + 512} MiB in /dev/shm or {tempfile.gettempdir()}: make room there")

# SPDX-License-Identifier: MIT
"""Where the programs of cases are born: one process that runs under the carrier and forks each of them.

An interpreter takes half a second to start on an emulated CPU, a fork takes none of it. The nursery has loaded
every case, does one at a time, waits for it as any parent does, and says how it ended.
"""

import atexit
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from mlockwipe.contract.candidate import Candidate
from mlockwipe.contract.start import Order

_MESSAGE = 4096


class Nursery:
    """The end of those who have programs born. `prefix`: what the nursery runs under. One user at a time."""

    def __init__(self, prefix: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            argv = [*prefix, sys.executable, "-P", "-S", "-m", "mlockwipe_lab.matrix.nursery", str(theirs.fileno())]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            self._process = subprocess.Popen(
                argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        self._socket.recv(_MESSAGE)

    def bear(self, carrier: Candidate, order: Order) -> "Born":
        """Start the program of an order; the carrier is the nursery's own."""
        self._lock.acquire()  # until it has ended
        message = "\0".join(
            [order.case.name, order.place, *(f"{key}={value}" for key, value in order.environment.items())]
        )
        socket.send_fds(self._socket, [message.encode()], [order.channel, order.output])
        return Born(int(self._socket.recv(_MESSAGE)), self._socket, self._lock)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


class Born:
    """A program that the nursery has forked: `mlockwipe.contract.start.Running`."""

    def __init__(self, pid: int, nursery: socket.socket, lock: threading.Lock) -> None:
        self.pid = pid
        self._nursery = nursery
        self._lock = lock
        self._status: int | None = None

    def fileno(self) -> int:
        return self._nursery.fileno()

    def wait(self) -> int:
        if self._status is None:
            self._status = int(self._nursery.recv(_MESSAGE))
        return self._status

    def close(self) -> None:
        self.wait()
        self._lock.release()


def main(nursery: socket.socket) -> None:
    from mlockwipe.contract.case import CASES
    from mlockwipe.contract.cases import all_cases
    from mlockwipe.contract.pattern import OWN_WORDS, use_own_words
    from mlockwipe.contract.program import Program

    all_cases()
    nursery.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(nursery, 1 << 16, 2)
        if not message:
            return
        name, place, *environment = message.decode().split("\0")
        pid = os.fork()
        if pid == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
        nursery.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        nursery.send(str(os.waitstatus_to_exitcode(status)).encode())

    # The program. When all its threads have ended, it does: an interpreter that clears itself away copies all that it
    # shares with the nursery, and that takes two thirds of a case's time.
    nursery.close()
    os.setsid()
    os.chdir(place)
    os.environ.clear()
    for entry in environment:
        key, _, value = entry.partition("=")
        os.environ[key] = value
    channel, output = descriptors
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.set_inheritable(channel, True)
    use_own_words(os.environ[OWN_WORDS])
    gc.collect()  # has most of what is shared with the nursery copied now, and not into pages that the case frees
    CASES[name].body(Program(-1, channel))
    atexit.register(os._exit, 0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))

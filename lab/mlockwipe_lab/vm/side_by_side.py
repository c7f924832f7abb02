# SPDX-License-Identifier: MIT
"""Jobs that boot guests, as many at a time as there is room for.

A guest keeps about one CPU busy: its cases run one after the other. Each job has a process of its own, which is a lab
of its own; a signal that ends this one is passed on to it, and it ends its guest.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from mlockwipe.interruption import ends_by_signal, held

_MEMORY = 2 << 30  # bytes for each guest: it may lie in /dev/shm, which is half of the memory

R = TypeVar("R")


def side_by_side(
    job: Callable[..., R], arguments: Sequence[tuple[Any, ...]], on_news: Callable[[int, Any], object]
) -> Iterator[tuple[int, R]]:
    """Call `job(*arguments[number], tell)` for each number, and yield the number with what it returned, as they end.

    `on_news` is called with the number and what the job has told. All of it must be fit for pickle. What a job
    raises is raised here, and ends the others.
    """
    context = get_context("spawn")  # a fork of a process with threads may find a lock taken
    waiting = deque(enumerate(arguments))
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < _room():
                number, one = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                with held(), theirs:
                    process = context.Process(target=_work, args=(theirs, job, one))
                    process.start()
                    running[ours] = number, process
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                number, process = running[connection]
                try:
                    kind, value = connection.recv()
                except EOFError:
                    raise RuntimeError(f"the process of a guest ended with {_ended(process)}") from None
                if kind == "raised":
                    raise value
                if kind == "told":
                    on_news(number, value)
                    continue
                del running[connection]
                connection.close()
                process.join()
                yield number, value
    finally:
        with held():
            for connection, (_, process) in running.items():
                process.terminate()
                connection.close()
            for _, process in running.values():
                process.join()


def _room() -> int:
    """How many guests at a time: one more than there are CPUs, for each waits for its disk now and then."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)) + 1, memory // _MEMORY))


def _work(connection: Connection, job: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    with ends_by_signal(), connection:
        try:
            connection.send(("returned", job(*arguments, lambda news: connection.send(("told", news)))))
        except BrokenPipeError:  # nobody waits for it any more
            pass
        except Exception as error:
            connection.send(("raised", error))


def _ended(process: SpawnProcess) -> int | None:
    process.join()
    return process.exitcode

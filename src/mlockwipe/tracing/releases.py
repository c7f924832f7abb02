# SPDX-License-Identifier: MIT
"""Memory that no task uses any more: it is wiped, and given back. What I/O still refers to has to wait for that."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

from mlockwipe.linux import wait
from mlockwipe.memory.address_space import AddressSpace, Family
from mlockwipe.memory.in_flight import PATIENCE
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.ranges import RangeSet
from mlockwipe.tracing.observer import Observer
from mlockwipe.tracing.policy import Policy

_MOST_OFTEN, _LEAST_OFTEN = 0.002, 1.0  # seconds from one look at I/O in flight to the next


class Releases:
    """`failed`: says that something has gone wrong with a process. `keeper_gone`: forgets the keeper of that pid.
    `all_children`: of whom an end may be waited for.
    """

    def __init__(
        self,
        policy: Policy,
        observer: Observer,
        journal: Journal,
        *,
        failed: Callable[[int, Exception], None],
        keeper_gone: Callable[[int], None],
        all_children: Callable[[], Iterable[int]],
    ) -> None:
        self._policy = policy
        self._observer = observer
        self._journal = journal
        self._failed = failed
        self._keeper_gone = keeper_gone
        self._all_children = all_children
        self._awaiting_io: dict[AddressSpace, _Wait] = {}
        self.last: deque[tuple[int, Family]] = deque(maxlen=64)  # families of the last that were released, by stack

    def release(self, space: AddressSpace, tgid: int, cause: str, tid: int = 0) -> None:
        """The last task of an address space is gone, `tid` if it has ended: wipe it, and give it back in any case.

        What I/O still refers to has to wait, and so has whoever waits for the end of `tid`, for a while.
        """
        self._awaiting_io.pop(space, None)
        waiting = _Wait(tgid, cause, tid)
        # Of a dead one without a keeper the kernel tells nothing any more.
        known = space.sensitive.ranges
        try:
            self._observer.ended(space, cause)
            if space.held is not None:
                known = self._policy.sensitive(space, space.held.keeper.pid)
        except OSError:
            pass
        except Exception as error:
            self._failed(tgid, error)
        if not self._wipe(space, known, waiting):
            self._give_back(space, waiting)
            return
        space.record(self._journal)
        self._awaiting_io[space] = waiting
        if tid:
            wait.put_off(tid, self._all_children)

    def await_io(self, space: AddressSpace, tgid: int) -> None:
        """A call of a living process has released memory that I/O still refers to."""
        self._awaiting_io[space] = _Wait(tgid, "", 0)

    def awaits_io(self, space: AddressSpace) -> bool:
        return space in self._awaiting_io

    def look(self) -> float | None:
        """Wipe what I/O does not refer to any more. When to look again, in seconds; None for never."""
        if not self._awaiting_io:
            return None
        for space, waiting in list(self._awaiting_io.items()):
            if monotonic() < waiting.due:
                continue
            waiting.look_later()
            if space.tids:
                with contextlib.suppress(OSError):
                    space.wipe_aside()
                if not space.aside or space.held is None:
                    del self._awaiting_io[space]
                space.record(self._journal)
            elif not self._wipe(space, space.in_flight, waiting):
                del self._awaiting_io[space]
                self._give_back(space, waiting)
                wait.report_again(waiting.tid)
                return 0
            elif waiting.is_over and wait.is_put_off(waiting.tid):
                self._policy.not_protected(
                    waiting.tgid, "memory that it has released is wiped only when I/O that still refers to it is done"
                )
                wait.report_again(waiting.tid)
                return 0
        return max(0.0, min((waiting.due for waiting in self._awaiting_io.values()), default=0.0) - monotonic())

    def give_up(self, space: AddressSpace) -> None:
        """Its keeper is lost: nothing keeps the end of a process from its parent any more."""
        if (waiting := self._awaiting_io.pop(space, None)) is not None:
            wait.report_again(waiting.tid)

    def _wipe(self, space: AddressSpace, ranges: RangeSet, waiting: "_Wait") -> bool:
        """Whether I/O still refers to any of it."""
        try:
            waiting.pages += space.wipe(ranges, self._journal, patient=not waiting.is_over)
        except OSError as error:
            self._policy.not_protected(
                waiting.tgid, f"pages released by {waiting.cause} could not be wiped: {error.strerror or error}"
            )
            return False
        except Exception as error:
            self._failed(waiting.tgid, error)
            return False
        return bool(space.in_flight)

    def _give_back(self, space: AddressSpace, waiting: "_Wait") -> None:
        keeper = None if space.held is None else space.held.keeper.pid
        if keeper is not None:
            self.last.append((space.stack_top, space.family))
            self._keeper_gone(keeper)
        space.release(self._journal)
        self._policy.released(space, keeper, waiting.tgid, waiting.cause, waiting.pages)


class _Wait:
    """For I/O that refers to memory which a process has released.

    At its end: by `cause`, and `tid` was its last task, 0 if that lives on.
    """

    def __init__(self, tgid: int, cause: str, tid: int) -> None:
        self.tgid = tgid
        self.cause = cause
        self.tid = tid
        self.pages = 0
        self._since = monotonic()
        self.due = self._since + _MOST_OFTEN

    @property
    def is_over(self) -> bool:
        """Whether it has been long enough for those who wait for the process."""
        return monotonic() - self._since > PATIENCE

    def look_later(self) -> None:
        """Wait the longer, the longer it takes."""
        now = monotonic()
        self.due = now + min(max((now - self._since) / 4, _MOST_OFTEN), _LEAST_OFTEN)

# SPDX-License-Identifier: MIT
"""What the supervisor entrusts to its guardian, who wipes and takes over when the supervisor is killed."""

import os

from mlockwipe.supervisor.channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mlockwipe.memory.keeper import Keeper


class Custody:
    """The supervisor's side. `guardian`: None when it is the guardian that took over."""

    def __init__(self, guardian: Channel | None) -> None:
        self._guardian = guardian

    def entrust(self, keeper: "Keeper") -> None:
        """Give the guardian what shows a keeper's memory, which it could not open itself if it is undumpable."""
        if self._guardian is not None:
            files = keeper.files
            self._guardian.send("keeper", keeper.pid, fds=(files.memory, files.pagemap, files.maps))

    def keeper_gone(self, pid: int) -> None:
        """A keeper has done its work."""
        if self._guardian is not None:
            self._guardian.send("gone", pid)


class Entrusted:
    """The guardian's side: the listener, the program, and mem, pagemap and maps of each keeper."""

    def __init__(self) -> None:
        self.listener = -1
        self.program = 0
        self.files: dict[int, list[int]] = {}

    def take_all(self, supervisor: Channel) -> None:
        """Until the supervisor has ended."""
        while (message := supervisor.receive()) is not None:
            self._take(*message)

    def _take(self, word: str, rest: str, fds: list[int]) -> None:
        if word == "program":
            self.program = int(rest)
            (self.listener,) = fds
        elif word == "keeper":
            self.files[int(rest)] = fds
        elif word == "gone":
            for fd in self.files.pop(int(rest), []):
                os.close(fd)

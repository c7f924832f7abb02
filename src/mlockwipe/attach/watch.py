# SPDX-License-Identifier: MIT
"""`mlockwipe attach --all`: which processes of this machine are to be attached to, asked anew every second."""

import os
from collections.abc import Callable

from mlockwipe.attach.holders import describe, holders
from mlockwipe.attach.policy import Policy
from mlockwipe.linux import procfs
from mlockwipe.supervisor.attachable import NotAttached, ancestors
from mlockwipe.supervisor.attached import Attached


class Watch:
    """The look at the machine, every second."""

    def __init__(self, attached: Attached, least: int, policy: Policy, say: Callable[[int, str], None]) -> None:
        self._attached = attached
        self._least = least
        self._policy = policy
        self._say = say
        self._looked_at: dict[int, str] = {}  # pids that were refused or excluded, with their start times
        self._never = set(ancestors(os.getpid()))

    def look(self) -> None:
        seen = {}
        for pid, status, locked in holders(self._least):
            if pid in self._never:
                continue
            try:
                started = procfs.stat_fields(pid)[19]
                if self._looked_at.get(pid) == started:
                    seen[pid] = started
                    continue
                if not self._policy.allows(describe(pid, status, locked)):
                    continue  # it may exec, or lock less
                self._attached.attach(pid)
            except NotAttached as error:
                seen[pid] = started
                self._say(0, f"process {pid} {error}")
            except OSError:
                continue  # gone
        self._looked_at = seen

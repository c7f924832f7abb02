# SPDX-License-Identifier: MIT
"""The outer half: a key manager in a machine, under a carrier, with all memory searched from outside."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe.kernel.packages import cache
from mlockwipe.lab.carriers import LabCarrier
from mlockwipe.lab.kernel import Kernel
from mlockwipe.lab.key_managers import KeyManager
from mlockwipe.lab.key_managers.hold import TRIES, Remain, Result
from mlockwipe.lab.machine import Machine, boot

SILENCE = 900.0  # seconds without a word of the guest: it hangs

GUEST = (sys.executable, "-P", "-m", "mlockwipe.lab.key_managers.guest")


class Failed(Exception):
    """What was to be shown could not be: what the guest said."""


def judge(kernel: Kernel, carrier: LabCarrier, managers: Sequence[KeyManager]) -> Iterator[Result | Failed]:
    """Each key manager, one after the other in one machine. Raises Refused and GuestFailed."""
    with boot(kernel, GUEST, append=carrier.append) as machine:
        for manager in managers:
            try:
                yield judge_one(machine, carrier, manager)
            except Failed as failed:
                yield failed
            except Refused as refused:  # a package that is not there
                yield Failed(str(refused))


def judge_one(machine: Machine, carrier: LabCarrier, manager: KeyManager, tries: int = TRIES) -> Result:
    """With a secret of its own. Raises Failed, Refused and GuestFailed."""
    # In the guest, the directories for what is temporary are its own.
    with tempfile.TemporaryDirectory(prefix="km-", dir=cache().parent) as place:
        needles = manager.prepare(Path(place))
        machine.send(
            {
                "id": 1,
                "key_manager": manager.name,
                "directory": place,
                "carrier": carrier.name,
                "prefix": carrier.prefix,
                "tries": tries,
            }
        )
        while "look" in (message := machine.receive(SILENCE)):
            with machine.stopped() as ram:
                found = {needle.label: list(ram.find(needle.data)) for needle in needles}
            machine.send({"id": 1, "found": found})
    if "raised" in message:
        raise Failed(message["raised"])
    told = message["result"]
    return Result(**{**told, "remains": [Remain(**remain) for remain in told["remains"]]})

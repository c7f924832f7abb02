# SPDX-License-Identifier: MIT
"""The outer half: key managers in a machine, under a carrier, with all memory searched from outside."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.contract.candidate import BARE
from mlockwipe.contract.result import FAILED, UNPROVEN
from mlockwipe.errors import Refused
from mlockwipe.kernel.packages import cache
from mlockwipe_lab.key_managers import KeyManager
from mlockwipe_lab.key_managers.hold import TRIES, Hit, Remain, Result
from mlockwipe_lab.key_managers.material import missing
from mlockwipe_lab.key_managers.verdict import SKIPPED, Verdict, as_expected, held_against, is_blind, verdict_of
from mlockwipe_lab.vm.failures import GuestFailed
from mlockwipe_lab.vm.guest_run import GuestRun
from mlockwipe_lab.vm.kernels import Kernel
from mlockwipe_lab.vm.machine import CallFailed, Machine, boot

SILENCE = 900.0  # seconds without a word of the guest: it hangs
AGAIN = 2  # times more, for a moment that was not found and a control that found nothing

OnVerdict = Callable[["Run", Verdict], object]


@dataclass
class Run(GuestRun[Verdict]):
    """Key managers under one carrier on one kernel."""

    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.failed is None and not self.blind and as_expected(self.carrier.name, self.verdicts)

    @property
    def blind(self) -> list[str]:
        """The key managers whose locked memory was not found although nothing wiped it."""
        if self.carrier.name != BARE:
            return []
        return [verdict.key_manager for verdict in self.verdicts if is_blind(verdict)]


def judge(
    kernel: Kernel,
    carriers: Sequence[Carrier],
    managers: Sequence[KeyManager],
    on_verdict: OnVerdict = lambda run, verdict: None,
) -> Iterator[Run]:
    """A run for each carrier, no carrier first. A guest that fails ends its run, not the others. Raises Refused."""
    control: dict[str, str] | None = None
    for carrier in sorted(carriers, key=lambda carrier: carrier.name != BARE):
        run = judge_carrier(kernel, carrier, managers, on_verdict)
        if carrier.name == BARE and run.failed is None:
            control = {verdict.key_manager: verdict.verdict for verdict in run.verdicts}
        elif control is not None:
            run.verdicts = [held_against(control, verdict) for verdict in run.verdicts]
        yield run


def judge_carrier(
    kernel: Kernel,
    carrier: Carrier,
    managers: Sequence[KeyManager],
    on_verdict: OnVerdict = lambda run, verdict: None,
) -> Run:
    """Each key manager that is installed, one after the other in one machine. Raises Refused."""
    run = Run(kernel, carrier)
    absent = {manager.name: "; ".join(sentences) for manager in managers if (sentences := missing(manager))}
    began = time.monotonic()

    def judged(verdict: Verdict) -> None:
        run.verdicts.append(verdict)
        on_verdict(run, verdict)

    for name, reason in absent.items():
        judged(Verdict(name, SKIPPED, reason))
    installed = [manager for manager in managers if manager.name not in absent]
    try:
        if installed:
            with boot(kernel, append=carrier.append) as machine:
                run.acceleration, run.guest = machine.acceleration, machine.hello
                for manager in installed:
                    judged(_judged(machine, carrier, manager))
    except GuestFailed as failed:
        run.failed, run.console = str(failed), failed.console
    run.seconds = time.monotonic() - began
    return run


def _judged(machine: Machine, carrier: Carrier, manager: KeyManager) -> Verdict:
    for _ in range(AGAIN + 1):
        try:
            verdict = verdict_of(hold_in(machine, carrier, manager))
        except (CallFailed, Refused) as failed:
            return Verdict(manager.name, FAILED, str(failed))
        if verdict.verdict != UNPROVEN:
            break
    return verdict


def hold_in(machine: Machine, carrier: Carrier, manager: KeyManager, tries: int = TRIES) -> Result:
    """With a secret of its own. Raises Refused, GuestFailed, and CallFailed where nothing could be shown."""
    # In the guest, the directories for what is temporary are its own.
    with tempfile.TemporaryDirectory(prefix="km-", dir=cache().parent) as place:
        needles = manager.prepare(Path(place))

        def look(_: object) -> dict[str, list[int]]:
            with machine.stopped() as ram:
                return {needle.label: list(ram.find(needle.data)) for needle in needles}

        told = machine.call(
            "mlockwipe_lab.key_managers.in_guest:hold_and_kill",
            SILENCE,
            answer=look,
            name=manager.name,
            directory=place,
            carrier=carrier.name,
            prefix=carrier.prefix,
            tries=tries,
        )
    before, after = ([kind(**one) for one in told[when]] for kind, when in ((Hit, "before"), (Remain, "after")))
    return Result(**{**told, "before": before, "after": after})

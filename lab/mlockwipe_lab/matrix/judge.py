# SPDX-License-Identifier: MIT
"""The matrix: every case under every carrier on every kernel, judged by searching the guest's memory."""

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.contract.candidate import BARE
from mlockwipe.contract.case import WIPED, Case
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.pattern import FIRST
from mlockwipe.contract.result import LEAKED, NEEDS_RAM_SCAN, NO_VERDICT, UNPROVEN, Result, as_expected
from mlockwipe.kernel.module import build, fetched_headers
from mlockwipe_lab.console import Advance
from mlockwipe_lab.vm.failures import GuestFailed
from mlockwipe_lab.vm.guest_run import GuestRun
from mlockwipe_lab.vm.kernels import Kernel
from mlockwipe_lab.vm.machine import Machine, acceleration, assume_acceleration, boot
from mlockwipe_lab.vm.side_by_side import side_by_side

PENDING = 6  # cases at a time that are not judged yet
SILENCE = 240.0  # seconds without a word of the guest: it hangs

TRIES = 3  # more, for what others have used before it could be searched

_IN_USE = "nothing wiped its pages, but others used them before they could be searched"
_NO_CONTROL = "nothing was found without a carrier either"


@dataclass(frozen=True)
class Look:
    """What one moment's search found: how many pages, and the first of them, each as frame, pairs and kind."""

    pages: int
    places: list[dict[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """A case's result, and what was found of its secret: `alive` while the program waited right after the
    release, `gone` when all its processes were gone. `seconds` in the guest. `lost`: too little was found of what
    the program had unlocked and released, so it is damaged; no program has seen any damage."""

    result: Result
    alive: Look
    gone: Look
    seconds: float
    lost: bool = False


@dataclass
class Run(GuestRun[Verdict]):
    """Cases under one carrier on one kernel."""

    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def results(self) -> list[Result]:
        return [verdict.result for verdict in self.verdicts]

    def is_wrong(self, verdict: Verdict) -> bool:
        """Whether it is not as the contract says."""
        result = verdict.result
        return result.verdict not in NO_VERDICT and not result.passes(self.carrier.name)

    @property
    def wrong(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if self.is_wrong(verdict)]

    @property
    def ok(self) -> bool:
        return self.failed is None and not self.blind_rows and as_expected(self.carrier.name, self.results)

    @property
    def blind_rows(self) -> list[str]:
        """The rows of the contract in which nothing was found although nothing wiped it."""
        if self.carrier.name != BARE:
            return []
        rows = dict.fromkeys(result.row for result in self.results if result.expected == WIPED)
        return [row for row in rows if not any(r.row == row and r.verdict == LEAKED for r in self.results)]


def verify(
    kernels: Sequence[Kernel],
    carriers: Sequence[Carrier],
    cases: Sequence[Case],
    advance: Advance = lambda kernel, carrier: None,
) -> Generator[list[Run], None, None]:
    """For each kernel a run of each carrier, no carrier first; several guests at a time. A guest that fails ends its
    run, not the others. `advance` is called for every verdict. Raises Refused.
    """
    order = sorted(carriers, key=lambda carrier: carrier.name != BARE)
    names = [case.name for case in cases]
    found = acceleration(kernels[0])  # once for all
    jobs = [(kernel, carrier, names, found) for kernel in kernels for carrier in order]
    ended: dict[int, Run] = {}
    first = 0  # of the runs on the next kernel
    for number, run in side_by_side(_verify_named, jobs, lambda number, _: advance(*jobs[number][:2])):
        ended[number] = run
        while first < len(jobs) and ended.keys() >= (here := set(range(first, first + len(order)))):
            yield _held_against_control([ended[number] for number in sorted(here)])
            first += len(order)


def _verify_named(
    kernel: Kernel, carrier: Carrier, names: Collection[str], found: str, tell: Callable[[None], object]
) -> Run:
    assume_acceleration(found)
    cases = [case for case in all_cases() if case.name in names]
    return verify_one(kernel, carrier, cases, lambda _: tell(None))


def _held_against_control(runs: list[Run]) -> list[Run]:
    """What is not found proves something only where it was found without a carrier."""
    for bare in runs:
        if bare.carrier.name == BARE and bare.failed is None:
            control = {result.case for result in bare.results if result.verdict == LEAKED}
            for run in runs:
                if run is not bare:
                    run.verdicts = [_held_against(control, verdict) for verdict in run.verdicts]
    return runs


def _held_against(control: Collection[str], verdict: Verdict) -> Verdict:
    result = verdict.result
    if result.verdict != WIPED or result.case in control:
        return verdict
    return replace(verdict, result=replace(result, verdict=UNPROVEN, reason=_NO_CONTROL))


def verify_one(
    kernel: Kernel,
    carrier: Carrier,
    cases: Sequence[Case],
    on_verdict: Callable[[Verdict], object] = lambda verdict: None,
) -> Run:
    """Boot once and judge every case; again, one at a time, those whose pages others may have used before they were
    seen: with no carrier those that left nothing, and those that have lost what must stay.
    """
    run = Run(kernel, carrier)
    began = time.monotonic()
    try:
        with boot(kernel, append=carrier.append) as machine:
            run.acceleration, run.guest = machine.acceleration, machine.hello
            if carrier.module is not None:
                load_module(machine, kernel, carrier.module)
            if carrier.boot_option and not machine.call("mlockwipe_lab.vm.guest:has_boot_option"):
                raise machine.failed(f"{kernel.name} has no boot option init_mlocked_on_free: name a kernel that has")
            found: dict[str, Verdict] = {}
            wanted = list(cases)
            for last in (*(False,) * TRIES, True):
                missed = []
                for verdict in _judged(machine, carrier, wanted, PENDING if not found else 1):
                    result = verdict.result
                    if of_chance := _is_of_chance(carrier, verdict):
                        missed.append(result.case)
                    if carrier.name == BARE and of_chance:
                        verdict = replace(verdict, result=replace(result, verdict=UNPROVEN, reason=_IN_USE))
                    found[result.case] = verdict
                    if last or result.case not in missed:
                        on_verdict(verdict)
                wanted = [case for case in wanted if case.name in missed]
            run.verdicts = [found[case.name] for case in cases]
            run.console = "" if run.ok else machine.console
    except GuestFailed as failed:
        run.failed, run.console = str(failed), failed.console
    run.seconds = time.monotonic() - began
    return run


def _is_of_chance(carrier: Carrier, verdict: Verdict) -> bool:
    """Whether others may have used free pages before they were searched."""
    match verdict.result.verdict:
        case "wiped":
            return carrier.name == BARE
        case "damaged":
            return verdict.lost and verdict.result.limit is None
    return False


def load_module(machine: Machine, kernel: Kernel, parameters: Sequence[str]) -> None:
    """Load init_mlocked_on_free, built for this kernel, into the guest. Raises Refused and GuestFailed."""
    module = build(kernel.release, fetched_headers(kernel.release))
    machine.call("mlockwipe_lab.vm.guest:load_module", path=str(module), parameters=list(parameters))


def _judged(machine: Machine, carrier: Carrier, cases: Sequence[Case], at_a_time: int) -> Iterator[Verdict]:
    """Each case's verdict as it comes."""
    told = {"name": carrier.name, "prefix": carrier.prefix, "limits": dict(carrier.limits), "late": carrier.late}
    waiting = deque(enumerate(cases))
    pending = 0
    patient: list[dict[str, Any]] = []
    while waiting or pending:
        # Programs run one at a time, but the next may begin while the memory of the last ones settles.
        while waiting and pending < at_a_time:
            number, case = waiting.popleft()
            machine.begin(number, "mlockwipe_lab.matrix.in_guest:judge_case", name=case.name, carrier=told)
            pending += 1
        if pending > len(patient):
            message = machine.receive(SILENCE)
            if "asks" not in message:
                pending -= 1
                yield _verdict(machine.returned(message))
                continue
            patient.append(message)
            if message["asks"]["patient"] and pending > len(patient):
                continue
        _answer(machine, patient)
        patient = []


def _answer(machine: Machine, searches: Sequence[dict[str, Any]]) -> None:
    """Look for the words that the guest asks for, while it stands still."""
    words = [int(word) for search in searches for word in search["asks"]["search"]]
    with machine.stopped() as ram:
        pairs = ram.pairs(FIRST, words)
    for search in searches:
        machine.answer(search["id"], {word: pairs[int(word)] for word in search["asks"]["search"]})


def _verdict(told: dict[str, Any]) -> Verdict:
    result = Result(**told["result"])
    if result.verdict == NEEDS_RAM_SCAN:  # what the case itself says when a machine can't run it
        result = replace(result, verdict=UNPROVEN)
    return Verdict(
        result,
        Look(**told["alive"]),
        Look(**told["gone"]),
        told["seconds"],
        told["lost"],
    )

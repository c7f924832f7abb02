# SPDX-License-Identifier: MIT
"""What one guest was booted for: verdicts under one carrier on one kernel, for people and as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mlockwipe.carriers.carrier import Carrier
from mlockwipe_lab.vm.kernels import Kernel

V = TypeVar("V")


@dataclass
class GuestRun(Generic[V]):
    """`failed`: why the guest did not get to the end. `console`: what its kernel said, where that or a verdict is not
    as it must be."""

    kernel: Kernel
    carrier: Carrier
    acceleration: str = ""
    guest: dict[str, Any] = field(default_factory=dict)
    verdicts: list[V] = field(default_factory=list)
    seconds: float = 0.0
    failed: str | None = None
    console: str = ""

    @property
    def ok(self) -> bool:
        """Whether the guest got to the end, the judge could see, and all is as it must be."""
        raise NotImplementedError


def runs_as_document(
    runs: Sequence[GuestRun[V]], machine: Mapping[str, object], record: Callable[[V], dict[str, object]]
) -> dict[str, object]:
    """The runs, ready for json.dump, as `record` makes a verdict."""
    return {"schema": 1, "machine": dict(machine), "runs": [_run(run, record) for run in runs]}


def _run(run: GuestRun[V], record: Callable[[V], dict[str, object]]) -> dict[str, object]:
    told: dict[str, object] = {
        "kernel": run.kernel.release,
        "carrier": run.carrier.name,
        "acceleration": run.acceleration,
        "guest": run.guest,
        "seconds": round(run.seconds, 1),
        "ok": run.ok,
        "results": [record(verdict) for verdict in run.verdicts],
    }
    if run.failed is not None:
        told["failed"] = run.failed
    if run.console:
        told["console"] = run.console
    return told

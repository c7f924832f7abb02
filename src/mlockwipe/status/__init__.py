# SPDX-License-Identifier: MIT
"""What protects released secrets on this machine, and what doesn't."""

from dataclasses import asdict, dataclass

from mlockwipe.status.checks import Check, init_mlocked_on_free_is_on, init_on_free_is_on, run_checks
from mlockwipe.status.machine import Machine
from mlockwipe.status.processes import Cover, LockedProcess, locked_processes

__all__ = ["SCHEMA", "Check", "LockedProcess", "Machine", "Status", "inspect", "to_json"]

SCHEMA = 1
UNLISTED = "locked memory"  # the check that says why there is no list of processes


@dataclass(frozen=True)
class Status:
    """All that `mlockwipe status` shows."""

    kernel: str
    checks: list[Check]
    processes: list[LockedProcess]


def inspect(machine: Machine | None = None, *, with_arguments: bool = False) -> Status:
    """Ask `machine` (None: this one). What it doesn't tell is a check in the state 'unknown', never an exception.

    `with_arguments`: those of the processes, too, which may have secrets among them.
    """
    machine = machine or Machine()
    checks = run_checks(machine)
    try:
        kernel = machine.release
    except OSError:
        kernel = "unknown"
    processes: list[LockedProcess] = []
    try:
        processes = locked_processes(machine, _kernel_cover(machine), with_arguments=with_arguments)
    except OSError as error:
        reason = error.strerror or str(error)
        advice = f"Listing /proc failed ({reason}): mount it, and ask again."
        checks.append(Check(UNLISTED, "unknown", reason, advice))
    return Status(kernel, checks, processes)


def _kernel_cover(machine: Machine) -> Cover | None:
    try:
        if init_mlocked_on_free_is_on(machine):
            return "init_mlocked_on_free"
        if init_on_free_is_on(machine):
            return "init_on_free"
    except OSError:  # the checks have said so
        pass
    return None


def to_json(status: Status) -> dict[str, object]:
    """The machine-readable form, with the schema's version."""
    return {
        "schema": SCHEMA,
        "kernel": status.kernel,
        "checks": [asdict(check) for check in status.checks],
        "processes": [asdict(process) for process in status.processes],
    }

# SPDX-License-Identifier: MIT
"""The cases, one file a subject."""

from mlockwipe.contract.case import CASES, Case

_SUBJECTS = (
    "unmap",
    "replace",
    "move",
    "heap",
    "advice",
    "exit",
    "killed",
    "exec",
    "protection",
    "lockall",
    "onfault",
    "private_file",
    "fork",
    "descendants",
    "swap",
    "huge_page",
    "unlocked",
    "file",
    "read_only_file",
    "library",
    "shared",
    "other_view",
    "failed_exec",
    "failed_unmap",
    "failed_map",
    "in_flight",
    "status",
    "interrupted",
    "unchanged",
    "foreign_abi",
)


def all_cases() -> list[Case]:
    """Every case, in the order of the contract's rows."""
    for subject in _SUBJECTS:
        __import__(f"{__name__}.{subject}")
    return sorted(CASES.values(), key=lambda case: (case.row[0] != "W", int(case.row[1:])))

# SPDX-License-Identifier: MIT
"""A case: one row of the contract, put to the test by one small program.

Every case's program imports this file, so it imports next to nothing: `dataclasses` alone would double the
time such a program needs to start.
"""

TYPE_CHECKING = False  # typing's own constant costs the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable

    from mlockwipe.contract.program import Program

    Body = Callable[[Program], object]

WIPED = "wiped"
KEPT = "kept"


class Case:
    """What is done, what must come of it, and why.

    `row`: of the contract, 'W1' to 'L8'. `name`: the row and what is done, 'W7-sigkill-busy'.
    `expected`: 'wiped' or 'kept'. `why`: one line. `body`: what the program does.
    `shows`: whether it puts pages before the witness, or states facts only.
    `status`: how the program itself ends: an exit status, or a signal as a negative number.
    `outlives`: a process of it goes on after the program itself has ended; judged when that one is gone too.
    `needs_ram_scan`: why the witness can't judge this case, or None.
    """

    __slots__ = ("body", "expected", "name", "needs_ram_scan", "outlives", "row", "shows", "status", "why")

    def __init__(
        self,
        row: str,
        name: str,
        expected: str,
        why: str,
        body: "Body",
        shows: bool,
        status: int,
        outlives: bool,
        needs_ram_scan: str | None,
    ) -> None:
        self.row = row
        self.name = name
        self.expected = expected
        self.why = why
        self.body = body
        self.shows = shows
        self.status = status
        self.outlives = outlives
        self.needs_ram_scan = needs_ram_scan

    def __repr__(self) -> str:
        return f"<Case {self.name}>"

    @property
    def module(self) -> str:
        """The module that registers the case."""
        return self.body.__module__


CASES: dict[str, Case] = {}


def case(
    row: str,
    what: str,
    expected: str,
    why: str,
    *,
    shows: bool = True,
    status: int = 0,
    outlives: bool = False,
    needs_ram_scan: str | None = None,
) -> "Callable[[Body], Body]":
    """Register the decorated function as the case ROW-WHAT."""

    def register(body: "Body") -> "Body":
        name = f"{row}-{what}"
        if name in CASES:
            raise ValueError(f"there are two cases {name}")
        CASES[name] = Case(row, name, expected, why, body, shows, status, outlives, needs_ram_scan)
        return body

    return register

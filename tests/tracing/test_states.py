# SPDX-License-Identifier: MIT
"""The tables of states in docs/supervisor.md say what the code allows, and nothing else."""

from pathlib import Path

import pytest

from mlockwipe.memory import address_space
from mlockwipe.memory.address_space import AddressSpace, Held, Released, Unprotected
from mlockwipe.memory.journal import Journal
from mlockwipe.tracing import task
from mlockwipe.tracing.task import Task, TaskState

DOCUMENT = Path(__file__).parents[2] / "docs" / "supervisor.md"
TASKS = {state.value: {following.value for following in after} for state, after in task.TRANSITIONS.items()}
SPACES = {
    state.__name__.lower(): {following.__name__.lower() for following in after}
    for state, after in address_space.TRANSITIONS.items()
}


def documented(heading: str, states: set[str]) -> dict[str, set[str]]:
    """What may follow each state, by the table below a heading. A row without a state is about the one above."""
    _, _, below = DOCUMENT.read_text().partition(f"\n{heading}\n")
    after: dict[str, set[str]] = {state: set() for state in states}
    state = ""
    for line in below.strip().split("\n\n")[0].splitlines()[2:]:
        first, _, _, following = (cell.strip() for cell in line.strip("|").split("|"))
        state = first or state
        target = following.partition(":")[0].partition(",")[0]
        if state in states and target in states and target != state:
            after[state].add(target)
    return after


def test_of_a_task() -> None:
    assert documented("Of a task:", set(TASKS)) == TASKS


def test_of_an_address_space() -> None:
    assert documented("Of an address space:", set(SPACES)) == SPACES


def test_a_task_does_not_go_from_call_to_call() -> None:
    stopped = Task(1, 1, AddressSpace())
    stopped.become(TaskState.NOTIFIED)
    with pytest.raises(AssertionError):
        stopped.become(TaskState.IN_CALL)


def test_only_an_unheld_address_space_can_be_held() -> None:
    space = AddressSpace()
    space.leave_unprotected(Journal())
    assert isinstance(space.state, Unprotected)
    with pytest.raises(AssertionError):
        space._become(Held.__new__(Held))
    space.release(Journal())
    assert isinstance(space.state, Released)
    assert space.held is None

# SPDX-License-Identifier: MIT
"""Births, execs, ends and keepers of real children, under a policy that only takes down what it is asked."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from mlockwipe.linux import procfs, ptrace, wait
from mlockwipe.linux.arch import NATIVE
from mlockwipe.linux.wait import (
    BIRTHS,
    EVENT_EXEC,
    EVENT_EXIT,
    End,
    EventStop,
    SignalStop,
    Stop,
    SyscallStop,
    TrapStop,
    UntracedStop,
)
from mlockwipe.memory.address_space import AddressSpace, Released
from mlockwipe.memory.inject import MASK, Injection
from mlockwipe.memory.instruction import system_call_instruction
from mlockwipe.memory.journal import Journal
from mlockwipe.memory.keeper import Keeper
from mlockwipe.memory.ranges import RangeSet
from mlockwipe.tracing.observer import Unobserved
from mlockwipe.tracing.restart import Restarts
from mlockwipe.tracing.task import FilterTwo, Task
from mlockwipe.tracing.tracees import Tracees
from tests.support.traced import child, go_on_until, stopped_child, subreaper

OPTIONS = ptrace.O_TRACEFORK | ptrace.O_TRACEVFORK | ptrace.O_TRACECLONE | ptrace.O_TRACEEXEC
RANGES = RangeSet([(1 << 30, (1 << 30) + 4096)])
REFUSED = f"the kernel refuses what that needs: {os.strerror(errno.ENFILE)}"
TRUE = ["/bin/true"]


class Recording:
    """A policy that lets everything go on. `refuse`: the method that raises OSError, if any."""

    birth_filter = FilterTwo.REFUSED  # to be told from what a child has of its maker

    def __init__(self) -> None:
        self.refuse = ""
        self.asked: list[tuple[str, object]] = []

    def of(self, method: str) -> list[object]:
        return [about for name, about in self.asked if name == method]

    def _note(self, method: str, about: object) -> None:
        self.asked.append((method, about))
        if method == self.refuse:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    def on_stop(self, task: Task, stop: Stop) -> None:
        self._note("on_stop", (task.tid, type(stop)))
        ptrace.cont(task.tid, stop.signal if isinstance(stop, SignalStop) else 0)

    def on_untraced_stop(self, stop: UntracedStop) -> None:
        self._note("on_untraced_stop", stop.tid)

    def sensitive(self, space: AddressSpace, tid: int) -> RangeSet:
        return space.sensitive.ranges

    def forked(self, parent: AddressSpace, child: AddressSpace, tgid: int) -> None:
        self._note("forked", tgid)

    def unknown(self, child: int) -> None:
        self._note("unknown", child)
        ptrace.detach(child)

    def welcome(self, task: Task, parent: AddressSpace | None) -> None:
        self._note("welcome", (task.tid, parent))

    def executes(self, task: Task) -> None:
        self._note("executes", task.tid)

    def not_protected(self, tgid: int, reason: str) -> None:
        self._note("not_protected", (tgid, reason))

    def partly_protected(self, tgid: int, reason: str) -> None:
        self._note("partly_protected", (tgid, reason))

    def released(self, space: AddressSpace, keeper: int | None, tgid: int, cause: str, pages: int) -> None:
        self._note("released", (tgid, cause))


@pytest.fixture
def policy() -> Recording:
    return Recording()


@pytest.fixture
def tracees(policy: Recording) -> Iterator[Tracees]:
    """They may have keepers, which are ended with the test."""
    with subreaper():
        tracees = Tracees(policy, Unobserved(), Journal(), Restarts(transfers=True))
        yield tracees
        for pid, space in list(tracees.keepers.items()):
            assert space.held is not None
            assert space.held.keeper.pid == pid
            space.held.keeper.let_go()


def add(tracees: Tracees, pid: int, *, keeper: bool = False) -> Task:
    """Have a child among the tracees, with RANGES; for its keeper it must be stopped."""
    task = Task(pid, pid, AddressSpace(), FilterTwo.YES)
    task.space.sensitive.ranges = RANGES.copy()
    task.space.stack_top = procfs.stack_top(pid)
    tracees.add(task)
    if keeper:
        tracees.keep(task.space, Keeper.create(pid, procfs.Status(pid), None))
    return task


def follow(tracees: Tracees, until: Callable[[Stop | End], bool]) -> Stop | End:
    """Handle every event, up to one that is as wanted: that one is looked at alone."""
    while True:
        found = wait.look(sleep=True)
        assert found is not None
        if until(found):
            return found
        if (end := tracees.handle(found)) is not None:
            wait.reap(end.tid)


def handle_end(tracees: Tracees, pid: int) -> None:
    """Handle every event up to the end of a task, that too."""
    end = follow(tracees, lambda event: isinstance(event, End) and event.tid == pid)
    assert tracees.handle(end) is end
    wait.reap(pid)


# -- births


def fork() -> None:
    if os.fork() == 0:
        signal.pause()
    os.wait()


def vfork() -> None:
    os.waitpid(os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}), 0)


def clone() -> None:
    threading.Thread(target=signal.pause).start()
    signal.pause()


BIRTH = {"fork": fork, "vfork": vfork, "clone": clone}
births = pytest.mark.parametrize("birth", BIRTH)


@contextmanager
def birth_of(birth: str, tracees: Tracees, *, keeper: bool = False) -> Iterator[tuple[Task, int, EventStop]]:
    """A task that has just made another, which has come to its first stop: both stops are looked at alone."""

    def body() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pause()
        BIRTH[birth]()

    with stopped_child(body, OPTIONS) as pid:
        task = add(tracees, pid, keeper=keeper)
        ptrace.cont(pid)
        os.kill(pid, signal.SIGUSR1)
        event = go_on_until(lambda event: isinstance(event, EventStop) and event.event in BIRTHS)
        assert isinstance(event, EventStop)
        newborn = ptrace.get_event_message(pid)
        os.waitid(os.P_PID, newborn, os.WSTOPPED | os.WNOWAIT | wait.WALL)
        yield task, newborn, event


@pytest.mark.parametrize("first", ["maker", "child"])
@births
def test_a_newborn_is_adopted_whichever_stop_comes_first(
    birth: str, first: str, tracees: Tracees, policy: Recording
) -> None:
    with birth_of(birth, tracees) as (maker, newborn, event):
        if first == "child":
            tracees.on_stop(TrapStop(newborn))
            assert newborn not in tracees.tasks
        tracees.on_stop(event)
        adopted = tracees.tasks[newborn]
        assert adopted.tgid == (maker.tid if birth == "clone" else newborn)
        assert adopted.filter_two is maker.filter_two
        assert adopted.space.sensitive.ranges == RANGES
        assert policy.of("welcome") == [(newborn, maker.space)]
        if birth == "fork":
            assert adopted.space is not maker.space
            assert adopted.space.family is maker.space.family
            assert adopted.space.sensitive.inherited
            assert policy.of("forked") == [newborn]
        else:
            assert adopted.space is maker.space
            assert policy.of("forked") == []
        for tid in (maker.tid, newborn):
            assert procfs.stat_fields(tid)[0] != "t" or wait.look_for_stop(tid) is not None  # both were let go on


@births
def test_a_newborn_whose_maker_lives_is_waited_for(birth: str, tracees: Tracees, policy: Recording) -> None:
    with birth_of(birth, tracees) as (_, newborn, event):
        tracees.on_stop(TrapStop(newborn))
        for _ in range(2):
            tracees.settle()
            assert newborn not in tracees.tasks
            assert procfs.stat_fields(newborn)[0] == "t"
        tracees.on_stop(event)
        tracees.settle()
        assert newborn in tracees.tasks
        assert len(policy.of("welcome")) == 1


def test_a_child_whose_maker_was_killed_has_what_its_family_had(tracees: Tracees, policy: Recording) -> None:
    with birth_of("fork", tracees, keeper=True) as (maker, newborn, _):
        tracees.on_stop(TrapStop(newborn))
        os.kill(maker.tid, signal.SIGKILL)
        handle_end(tracees, maker.tid)
        assert policy.of("released") == [(maker.tid, "SIGKILL")]
        assert newborn not in tracees.tasks
        tracees.settle()
        orphan = tracees.tasks[newborn]
        assert orphan.space.sensitive.ranges == RANGES
        assert orphan.space.family is maker.space.family
        assert orphan.space is not maker.space
        assert orphan.filter_two is policy.birth_filter
        assert policy.of("welcome") == [(newborn, None)]


@pytest.mark.parametrize("seen", [True, False], ids=["in its first stop", "on its way there"])
def test_a_child_that_shares_its_memory_inherits_it_from_a_maker_that_was_killed(
    seen: bool, tracees: Tracees, policy: Recording
) -> None:
    """It is wiped when the child is gone, and not under it."""
    with birth_of("vfork", tracees, keeper=True) as (maker, newborn, _):
        space = maker.space
        if seen:
            tracees.on_stop(TrapStop(newborn))
        os.kill(maker.tid, signal.SIGKILL)
        os.waitid(os.P_PID, maker.tid, os.WEXITED | os.WNOWAIT)
        tracees._on_end(End(maker.tid, signal.SIGKILL, os.CLD_KILLED))
        assert tracees.tasks[newborn].space is space
        assert space.tids == {newborn}
        assert policy.of("released") == []
        wait.reap(maker.tid)
        os.kill(newborn, signal.SIGKILL)
        handle_end(tracees, newborn)
        assert policy.of("released") == [(newborn, "SIGKILL")]
        assert space.held is None


def test_one_that_still_shares_its_memory_has_the_same_address_space(tracees: Tracees, policy: Recording) -> None:
    with birth_of("vfork", tracees, keeper=True) as (maker, newborn, _), stopped_child(options=OPTIONS) as other:
        tracees.add(Task(other, other, maker.space))  # which thus is not released with the maker
        tracees.on_stop(TrapStop(newborn))
        os.kill(maker.tid, signal.SIGKILL)
        handle_end(tracees, maker.tid)
        tracees.settle()
        assert tracees.tasks[newborn].space is maker.space
        assert policy.of("welcome") == [(newborn, None)]
        tracees._forget(other)


def test_a_helper_of_a_keeper_that_was_being_made_is_ended(tracees: Tracees, policy: Recording) -> None:
    with stopped_child(options=OPTIONS) as pid:
        add(tracees, pid)
        with suppress(wait.TaskGone), Injection(pid, *system_call_instruction(pid)) as program:
            helper, _ = program.clone()
            os.kill(pid, signal.SIGKILL)
            program.call("munmap", 1, 4096)
        tracees.on_stop(TrapStop(helper))
        handle_end(tracees, pid)
        tracees.settle()
        assert helper not in tracees.tasks
        assert policy.of("welcome") == []
        with pytest.raises(ProcessLookupError):
            os.kill(helper, 0)


def test_a_child_of_a_program_that_blocks_the_same_signals_is_no_helper(tracees: Tracees, policy: Recording) -> None:
    with birth_of("fork", tracees, keeper=True) as (maker, newborn, _):
        ptrace.set_signal_mask(newborn, MASK)
        tracees.on_stop(TrapStop(newborn))
        os.kill(maker.tid, signal.SIGKILL)
        handle_end(tracees, maker.tid)
        tracees.settle()
        assert policy.of("welcome") == [(newborn, None)]


def test_a_newborn_that_was_killed_in_its_first_stop_is_forgotten(tracees: Tracees, policy: Recording) -> None:
    with birth_of("fork", tracees) as (_, newborn, event):
        tracees.on_stop(TrapStop(newborn))
        os.kill(newborn, signal.SIGKILL)
        tracees.on_stop(event)
        handle_end(tracees, newborn)
        tracees.settle()
        assert newborn not in tracees.tasks


def test_a_newborn_that_nothing_can_be_read_of_is_the_policys(
    tracees: Tracees, policy: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> str:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    with birth_of("fork", tracees) as (maker, newborn, event):
        monkeypatch.setattr(procfs, "status_field", refused)
        tracees.on_stop(event)
        monkeypatch.undo()
        assert policy.of("unknown") == [newborn]
        assert newborn not in tracees.tasks
        assert policy.of("not_protected") == [(maker.tid, REFUSED)]
        assert procfs.status_field(newborn, "TracerPid") == "0"
        assert procfs.stat_fields(maker.tid)[0] != "t"


# -- errors


def raises_usr1() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("refuse", ["on_stop", ""])
def test_what_can_not_be_done_for_one_process_ends_nobody(refuse: str, tracees: Tracees, policy: Recording) -> None:
    policy.refuse = refuse
    with child(raises_usr1, OPTIONS) as one, child(raises_usr1, OPTIONS) as other:
        for pid in (one, other):
            add(tracees, pid)
        ends: dict[int, End] = {}
        while len(ends) < 2:
            found = follow(tracees, lambda event: isinstance(event, End))
            assert isinstance(found, End)
            if tracees.handle(found) is found:
                ends[found.tid] = found
                wait.reap(found.tid)
        assert {end.status for end in ends.values() if end.exited} == {7}  # and each has had its signal
        assert set(policy.of("not_protected")) == ({(one, REFUSED), (other, REFUSED)} if refuse else set())
        assert set(policy.of("released")) == {(one, "exit"), (other, "exit")}


@births
def test_a_newborn_that_can_not_be_welcomed_goes_on_as_its_maker_does(
    birth: str, tracees: Tracees, policy: Recording
) -> None:
    policy.refuse = "welcome"
    with birth_of(birth, tracees) as (maker, newborn, event):
        tracees.on_stop(event)
        assert policy.of("not_protected") == [(int(procfs.status_field(newborn, "Tgid")), REFUSED)]
        for tid in (maker.tid, newborn):
            assert tid in tracees.tasks
            assert procfs.stat_fields(tid)[0] != "t" or wait.look_for_stop(tid) is not None


# -- exec and ends


def execute() -> None:
    os.execv(TRUE[0], TRUE)


def execute_from_another_thread() -> None:
    threading.Thread(target=execute).start()
    signal.pause()


@pytest.mark.parametrize("body", [execute, execute_from_another_thread], ids=["first-thread", "another"])
def test_an_exec_releases_the_memory_and_leaves_one_task(
    body: Callable[[], None], tracees: Tracees, policy: Recording
) -> None:
    with child(body, OPTIONS) as pid:
        former = add(tracees, pid).space
        stop = follow(tracees, lambda event: isinstance(event, EventStop) and event.event == EVENT_EXEC)
        assert former.tids == set(tracees.tasks)
        assert not isinstance(former.state, Released)
        assert tracees.handle(stop) is None
        assert list(tracees.tasks) == [pid]
        space = tracees.tasks[pid].space
        assert space is not former
        assert space.tids == {pid}
        assert not space.sensitive.ranges
        assert isinstance(former.state, Released)
        assert policy.of("released") == [(pid, "exec")]
        assert policy.of("executes") == [pid]
        handle_end(tracees, pid)
        assert policy.of("released") == [(pid, "exec"), (pid, "exit")]
        assert not tracees.tasks


def test_an_exec_of_a_vfork_child_leaves_its_makers_memory(tracees: Tracees, policy: Recording) -> None:
    def body() -> None:
        os.waitpid(os.posix_spawn(TRUE[0], TRUE, {}), 0)

    with child(body, OPTIONS) as pid:
        space = add(tracees, pid).space
        exec_stop = follow(tracees, lambda event: isinstance(event, EventStop) and event.event == EVENT_EXEC)
        assert space.tids == {pid, exec_stop.tid}
        tracees.handle(exec_stop)
        assert policy.of("released") == []
        assert space.tids == {pid}
        handle_end(tracees, pid)
        assert set(policy.of("released")) == {(exec_stop.tid, "exit"), (pid, "exit")}


def test_the_last_thread_releases_the_memory_and_no_other(tracees: Tracees, policy: Recording) -> None:
    def body() -> None:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()

    with child(body, OPTIONS) as pid:
        space = add(tracees, pid).space
        end = follow(tracees, lambda event: isinstance(event, End))
        assert end.tid != pid
        tracees.handle(end)
        wait.reap(end.tid)
        assert space.tids == {pid}
        assert policy.of("released") == []
        handle_end(tracees, pid)
        assert policy.of("released") == [(pid, "exit")]


def test_stops_come_before_ends(tracees: Tracees, policy: Recording) -> None:
    with child(lambda: None) as dead, stopped_child(options=OPTIONS) as stopped:
        add(tracees, stopped)
        end = go_on_until(lambda event: isinstance(event, End) and event.tid == dead)
        ptrace.cont(stopped)
        ptrace.interrupt(stopped)
        os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
        assert tracees.handle(end) is None
        assert policy.of("on_stop") == [(stopped, TrapStop)]
        assert tracees.handle(end) is end


# -- keepers


def test_the_end_of_the_last_task_ends_its_keeper(tracees: Tracees, policy: Recording) -> None:
    with stopped_child(options=OPTIONS) as pid:
        space = add(tracees, pid, keeper=True).space
        (keeper,) = tracees.keepers
        os.kill(pid, signal.SIGKILL)
        handle_end(tracees, pid)
        assert policy.of("released") == [(pid, "SIGKILL")]
        assert tracees.keepers == {}
        assert isinstance(space.state, Released)
        with pytest.raises(ProcessLookupError):
            os.kill(keeper, 0)


def kill_keeper(tracees: Tracees) -> EventStop:
    """Kill the one keeper there is: the exit stop that it halts in."""
    (keeper,) = tracees.keepers
    os.kill(keeper, signal.SIGKILL)
    halted = go_on_until(lambda event: event.tid == keeper)
    assert isinstance(halted, EventStop)
    assert halted.event == EVENT_EXIT
    return halted


def test_a_killed_keeper_holds_the_memory_until_the_program_ends(tracees: Tracees, policy: Recording) -> None:
    with stopped_child(options=OPTIONS) as pid:
        space = add(tracees, pid, keeper=True).space
        tracees.on_stop(kill_keeper(tracees))
        assert space.held is not None
        assert policy.asked == []
        os.kill(pid, signal.SIGKILL)
        handle_end(tracees, pid)
        assert policy.of("released") == [(pid, "SIGKILL")]
        assert tracees.keepers == {}


def test_a_keeper_that_halts_when_no_task_uses_the_memory_is_released_at_once(
    tracees: Tracees, policy: Recording
) -> None:
    """Process 1 of a PID namespace is not dead before its keeper is."""
    with stopped_child(options=OPTIONS) as pid:
        add(tracees, pid, keeper=True)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is dead, and that is not handled yet
        tracees.on_stop(kill_keeper(tracees))
        assert policy.of("released") == [(pid, "SIGKILL")]
        assert (tracees.keepers, tracees.tasks) == ({}, {})


def test_a_keeper_that_is_gone_leaves_the_program_unprotected(tracees: Tracees, policy: Recording) -> None:
    with stopped_child(options=OPTIONS) as pid:
        space = add(tracees, pid, keeper=True).space
        keeper = kill_keeper(tracees).tid
        ptrace.cont(keeper)  # out of its exit stop, as a kernel may let it slip
        handle_end(tracees, keeper)
        assert space.is_unprotected
        assert policy.of("not_protected") == [(pid, "its keeper was killed")]
        assert tracees.keepers == {}
        os.kill(pid, signal.SIGKILL)
        handle_end(tracees, pid)
        assert policy.of("released") == [(pid, "SIGKILL")]


def test_a_keeper_that_is_woken_never_returns_to_user_space(tracees: Tracees, policy: Recording) -> None:
    with stopped_child(options=OPTIONS) as pid:
        add(tracees, pid, keeper=True)
        (keeper,) = tracees.keepers
        os.kill(keeper, signal.SIGSTOP)
        found = go_on_until(lambda event: event.tid == keeper)
        assert isinstance(found, SyscallStop)
        assert ptrace.get_registers(keeper).number == NATIVE.numbers["pause"]
        tracees.on_stop(found)
        os.kill(keeper, signal.SIGCONT)
        assert procfs.stat_fields(keeper)[0] == "t"
        assert wait.look_for_stop(keeper) is None  # and nobody hears of it again
        assert policy.asked == []

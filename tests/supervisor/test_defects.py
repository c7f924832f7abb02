# SPDX-License-Identifier: MIT
"""An exception that nobody has foreseen, anywhere in the supervisor: it concerns one process alone, which goes on."""

import re
import signal
import sys

import pytest

from tests.support.attaching import attaching, obedient
from tests.support.c_programs import needs_gcc
from tests.support.running import run_bare, run_supervised

# A part of the supervisor that raises when it is called, the first time only or always. `what` is a module and a name
# in it, or a method of a class in it.
RAISES = """
import importlib, sys
from mlockwipe.cli import main
(module, _, name), times = sys.argv.pop(1).partition(":"), float(sys.argv.pop(1))
owner = importlib.import_module(module)
*classes, name = name.split(".")
for one in classes:
    owner = getattr(owner, one)
true = owner.__dict__[name]
def raises(*arguments, **keywords):
    global times
    times -= 1
    if times >= 0:
        raise ValueError("a secret of the program")
    function = true.__func__ if isinstance(true, classmethod) else true
    return function(*arguments, **keywords)
setattr(owner, name, classmethod(raises) if isinstance(true, classmethod) else raises)
sys.exit(main())
"""
# Two lives, one after the other, in which everything happens that a supervisor has to do with. The second is killed.
LIVES = """
import ctypes, os, signal, sys, threading
from mlockwipe.linux import mm
PAGE = 4096
def life():
    secret = mm.mmap(0, 8 * PAGE, 3, 0x22)
    mm.mlock(secret, 8 * PAGE)
    ctypes.memset(secret, 1, 8 * PAGE)
    mm.munmap(secret, PAGE)
    mm.mmap(secret + PAGE, PAGE, 3, 0x32)
    try:
        mm.mmap(secret + 2 * PAGE, PAGE, 3, 0x12, 99)
    except OSError as error:
        print(error.errno, ctypes.string_at(secret + 2 * PAGE, 2))
    mm.mlockall(1)
    pid = os.fork()
    if pid == 0:
        ctypes.memset(secret + 2 * PAGE, 2, PAGE)
        os.execv("/bin/sh", ["sh", "-c", "exit 7"])
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    thread = threading.Thread(target=lambda: print("thread"))
    thread.start()
    thread.join()
    print(ctypes.string_at(secret + 2 * PAGE, 2), flush=True)
for end in (lambda: os._exit(5), lambda: os.kill(os.getpid(), 9)):
    pid = os.fork()
    if pid == 0:
        life()
        end()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
sys.exit(3)
"""
RUN = [
    "mlockwipe.memory.address_space:AddressSpace.begin",
    "mlockwipe.memory.address_space:AddressSpace._wipe_at_entry",
    "mlockwipe.memory.address_space:AddressSpace.end",
    "mlockwipe.memory.address_space:AddressSpace.forked",
    "mlockwipe.memory.address_space:AddressSpace.hold",
    "mlockwipe.memory.address_space:AddressSpace.lock_unwatched",
    "mlockwipe.memory.address_space:AddressSpace.released",
    "mlockwipe.memory.address_space:AddressSpace.wipe",
    "mlockwipe.memory.inject:Injection.call",
    "mlockwipe.memory.keeper:Keeper.create",
    "mlockwipe.memory.keeper:Keeper._become_keeper",
    "mlockwipe.memory.wipe:clear",
    "mlockwipe.supervisor.filtered:Filtered.executes",
    "mlockwipe.supervisor.filtered:Filtered.on_stop",
    "mlockwipe.supervisor.filtered:Filtered.sensitive",
    "mlockwipe.supervisor.filtered:Filtered.welcome",
    "mlockwipe.tracing.notified:NotifiedCalls._let_go_on",
    "mlockwipe.tracing.notified:NotifiedCalls._prepare",
    "mlockwipe.tracing.notified:NotifiedCalls._trace",
    "mlockwipe.tracing.notified:seize_sharing",
    "mlockwipe.tracing.protection:Protection.protect",
    "mlockwipe.tracing.tracees:share_memory",
    "mlockwipe.tracing.tracees:Tracees._on_exec",
    "mlockwipe.tracing.trapped:decode",
    "mlockwipe.tracing.trapped:TrappedCalls.returned",
]
ATTACH = [
    "mlockwipe.memory.keeper:Keeper.create_mortal",
    "mlockwipe.supervisor.attached:Attached.on_stop",
    "mlockwipe.supervisor.attached:Attached.forked",
    "mlockwipe.supervisor.attached:Attached.sensitive",
    "mlockwipe.tracing.restart:Restarts.at_stop",
    "mlockwipe.tracing.mercy:AtOurMercy.__enter__",
    "mlockwipe.tracing.tracees:share_memory",
    "mlockwipe.tracing.tracees:Tracees._adopt",
    "mlockwipe.tracing.tracees:Tracees._on_end",
]
# The text has what a developer needs, and nothing of the exception's own, which may hold a secret.
SAID = re.compile(r"a defect of mlockwipe, please report it: ValueError in [a-z_/]+\.py, line \d+$")


def raising(what: str, times: float) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", RAISES, what, str(times))


@pytest.mark.parametrize("what", RUN)
@pytest.mark.parametrize("times", [1, float("inf")], ids=["once", "always"])
def test_under_run_one_process_is_not_protected_and_nothing_of_it_changes(what: str, times: float) -> None:
    command = [sys.executable, "-c", LIVES]
    outcome = run_supervised(command, mlockwipe=raising(what, times))
    assert outcome.result == run_bare(command).result
    said = outcome.err.splitlines()
    assert said
    assert all(SAID.search(line) for line in said)
    assert len(set(said)) == len(said)
    if times == 1:
        assert outcome.pages_wiped
        assert outcome.report["pages_wiped"]["SIGKILL"]


@needs_gcc
@pytest.mark.parametrize("what", ATTACH)
@pytest.mark.parametrize("times", [1, float("inf")], ids=["once", "always"])
def test_under_attach_others_stay_covered(what: str, times: float) -> None:
    with (
        obedient(2) as (first, _),
        obedient() as (second, _),
        attaching(str(first.pid), str(second.pid), prefix=raising(what, times)) as attachment,
    ):
        for _ in range(2 if times == 1 else 1):  # what is the same of all is said of one
            attachment.await_said(lambda line: "process" in line)
        assert first.tell("fs") == ["had a child", "ran it"]
        for program in (first, second):
            program.kill()
            assert program.end() == -signal.SIGKILL
        left = [program.look().dirty for program in (first, second)]
        assert attachment.end() == 0
        assert any(SAID.search(line) for line in attachment.said)
        assert not any("Traceback" in line for line in attachment.said)
        if times == 1:
            assert 0 in left

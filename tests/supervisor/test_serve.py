# SPDX-License-Identifier: MIT
"""Programs that were handed over to `mlockwipe serve`: whatever is killed with them, no page of theirs is left.

The negative control is in tests/attach/test_kill_domain.py: `run`, which is killed with the program, leaves them.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.carriers.supervisor import SUPERVISOR
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.result import NO_VERDICT
from mlockwipe.contract.runner import verify
from mlockwipe.errors import Refused
from mlockwipe.linux import procfs
from mlockwipe.supervisor import handover
from tests.support.attaching import PART, UNSHARE, Obedient, obedient
from tests.support.c_programs import needs_gcc
from tests.support.running import MLOCKWIPE, TIMEOUT, Marked, run_bare
from tests.support.serving import Service, serving


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as found:
        yield found


# -- the handing over -------------------------------------------------------------------------------------------


def test_the_program_keeps_its_pid_and_its_parent(service: Service) -> None:
    process = subprocess.Popen(
        [*service.exec, "sh", "-c", "echo $$ $PPID; exit 7"],
        stdout=subprocess.PIPE,
        text=True,
        env=service.processes.environment,
    )
    said, _ = process.communicate(timeout=TIMEOUT)
    assert said.split() == [str(process.pid), str(os.getpid())]
    assert process.returncode == 7


def test_a_program_that_is_not_there_has_the_status_of_a_shell(service: Service) -> None:
    outcome = run_bare([*service.exec, "no-such-program"])
    assert (outcome.status, outcome.err) == (127, "mlockwipe: no-such-program: command not found\n")


def test_without_a_service_nothing_is_started(tmp_path: Path) -> None:
    outcome = run_bare([MLOCKWIPE, "exec", "--socket", str(tmp_path / "none"), "--", "touch", str(tmp_path / "ran")])
    assert outcome.status == 125
    assert outcome.err.startswith("mlockwipe: the service can't be reached at ")
    assert "there is no such socket" in outcome.err
    assert not (tmp_path / "ran").exists()


def test_a_service_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "socket"))
        silent.listen()
        pid = os.fork()
        if pid == 0:
            try:
                handover.execute(["true"], str(tmp_path / "socket"), handover.Wish())
            except Refused as refusal:
                os._exit(3 if "did not answer" in str(refusal) else 4)
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


@needs_gcc
def test_under_a_second_exec_the_first_goes_on(service: Service) -> None:
    outcome = run_bare([*service.exec, *service.exec, "true"])
    assert outcome.status == 125
    assert "under a seccomp notification listener already" in outcome.err


def test_two_services_do_not_take_one_socket(service: Service) -> None:
    outcome = run_bare([MLOCKWIPE, "serve", "--socket", service.socket])
    assert (outcome.status, outcome.err) == (
        125,
        f"mlockwipe: a service listens at {service.socket} already\n",
    )


def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    outcome = run_bare([MLOCKWIPE, "serve", "--socket", str(tmp_path / "file")])
    assert outcome.status == 125
    assert (tmp_path / "file").read_text() == "precious"


def test_for_want_of_memory_others_are_killed_before_it() -> None:
    with serving("sh", "-c", 'echo 300 >/proc/self/oom_score_adj; exec "$@"', "sh") as service:
        score = int(Path(f"/proc/{service.process.pid}/oom_score_adj").read_text())
        assert score in (0, -1000)


# -- hostile connections ----------------------------------------------------------------------------------------


def send(service: Service, text: bytes, *fds: int) -> str:
    """The refusal that a message gets; "" for none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(service.socket)
        with suppress(BrokenPipeError, ConnectionResetError):  # it has read enough
            if fds:
                socket.send_fds(connection, [text], fds)
            else:
                connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionResetError):
            while more := connection.recv(4096):
                answer += more
        return str(json.loads(answer).get("refused", "")) if answer else ""


def state(**changes: object) -> bytes:
    found = json.loads(handover.state(os.getpid(), "test", handover.Wish()))
    return json.dumps({**found, **changes}).encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it ended before its message did"),
        (b"\0" * 100, "it ended before its message did"),
        (b"}", "it ended before its message did"),
        (b'{"fds": [', "it ended before its message did"),
        (b"[" * 5000 + b"}", "it ended before its message did"),
        (b"[{}" + b"]" + b" {}", "it ended before its message did"),
        (b"{}", "its message names no seccompFd"),
        (state(fds="seccompFd"), "its message names no seccompFd"),
        (state(pid=0), "its message names no process"),
        (state(pid="1"), "its message names no process"),
        (state(pid=True), "its message names no process"),
        (state(), "the descriptor that it brings is no listener of seccomp"),
        (state(metadata=json.dumps({"mlockwipe": 99})), "it speaks version 99 of the message, and this service 1"),
        (b" " * (handover.LARGEST + 1) + b"{}", f"its message is longer than {handover.LARGEST} bytes"),
    ],
    ids=range(14),
)
def test_what_is_no_request_is_refused_and_the_service_goes_on(service: Service, text: bytes, said: str) -> None:
    assert send(service, text) == said
    assert run_bare([*service.exec, "true"]).status == 0


def test_descriptors_that_are_no_listener_are_refused(service: Service) -> None:
    with open("/dev/null") as null:
        assert "no listener" in send(service, state(), null.fileno())
        assert "too many descriptors" in send(service, state(), *[null.fileno()] * 200)
    assert run_bare([*service.exec, "true"]).status == 0


def test_a_message_that_comes_slowly_keeps_nobody_waiting(service: Service) -> None:
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(service.socket)
        slow.send(b"{")
        assert run_bare([*service.exec, "true"]).status == 0


def test_a_message_in_pieces_is_put_together(service: Service) -> None:
    """Of a runtime that waits for nothing: here the listener is none, and the refusal shows that all of it came."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(service.socket)
        for byte in state(fds=[]):
            connection.send(bytes([byte]))
        assert "names no seccompFd" in connection.recv(4096).decode()


# -- everything killed at once ----------------------------------------------------------------------------------


def kill_each(program: Obedient, processes: Marked) -> None:
    while tasks := processes.processes():
        for pid in tasks:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@needs_gcc
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("domain", [pytest.param("pid-namespace", marks=pytest.mark.needs_pid_namespace), "each"])
def test_no_page_is_left_of_what_is_killed_at_once(service: Service, domain: str, threads: int) -> None:
    prefix = UNSHARE if domain == "pid-namespace" else ()
    for _ in range(10):
        with obedient(threads, (*prefix, *service.exec)) as (program, processes):
            assert program.tell("ls") == ["locked", "ran it"]
            if domain == "pid-namespace":
                program.aim_at_child()
                program.kill()
            else:
                kill_each(program, processes)
            program.end()
            pages = program.look()
            assert (pages.total, pages.zero) == (2 * PART, 2 * PART)
    assert all(report["pages_wiped"] for report in service.reports())


@needs_gcc
def test_the_service_may_end_and_the_program_stays_covered(service: Service) -> None:
    with obedient(1, service.exec) as (program, _):
        assert service.end() == 0
        assert not Path(service.socket).exists()
        assert program.tell("l") == ["locked"]
        program.kill()
        assert program.end() == -signal.SIGKILL
        pages = program.look()
        assert (pages.total, pages.zero) == (2 * PART, 2 * PART)


@needs_gcc
@pytest.mark.parametrize("who", ["mlockwipe-super", "mlockwipe-guard"])
def test_one_of_the_pair_is_killed(service: Service, who: str) -> None:
    """With its supervisor the program is killed, as under `run`; the guardian it does not miss."""
    with obedient(1, service.exec) as (program, _):
        (victim,) = service.processes.named(who)
        os.kill(victim, signal.SIGKILL)
        if who == "mlockwipe-guard":
            assert program.tell("l") == ["locked"]
            program.kill()
        assert program.end() == -signal.SIGKILL
        service.reports()  # when all is done
        pages = program.look()
        assert pages.dirty == 0
        assert pages.zero == pages.total > 0


@needs_gcc
def test_a_second_program_does_not_notice_the_death_of_the_first_ones_supervisor(service: Service) -> None:
    with obedient(1, service.exec) as (first, _), obedient(1, service.exec) as (second, _):
        supervisor = int(procfs.status_field(first.pid, "TracerPid"))
        os.kill(supervisor, signal.SIGKILL)
        assert first.end() == -signal.SIGKILL
        assert second.tell("l") == ["locked"]
        second.kill()
        second.end()
        assert second.look().dirty == 0


RECOVERY_FAILS = """
import sys
from mlockwipe.cli import main
from mlockwipe.supervisor import outside

def fails(*_):
    raise ValueError

outside.recover = fails
sys.exit(main(sys.argv[2:]))
"""
LOCKS = "from mlockwipe.linux import mm; mm.mlock(mm.mmap(0, 4096, 3, 0x22), 4096)"


@needs_gcc
def test_a_guardian_that_can_not_wipe_supervises_what_is_left() -> None:
    """Without a supervisor the second program's lock would fail with ENOSYS."""
    shell = ("sh", "-c", f'"$@"; exec {sys.executable} -c "{LOCKS}; exit(7)"', "sh")
    with (
        serving(sys.executable, "-c", RECOVERY_FAILS) as service,
        obedient(1, (*service.exec, *shell)) as (program, processes),
    ):
        (supervisor,) = service.processes.named("mlockwipe-super")
        os.kill(supervisor, signal.SIGKILL)
        assert program.end() == 7
        for keeper in processes.named("mlockwipe-keep"):
            os.kill(keeper, signal.SIGKILL)  # of the first program, which was left as it was
        service.await_idle()
        assert any("what it left could not be wiped: " in line for line in service.log)


# -- the contract -----------------------------------------------------------------------------------------------


def test_the_contract_is_fulfilled_as_by_run(service: Service) -> None:
    # There, the program itself is no child of its supervisor.
    limits = {**SUPERVISOR.limits, "L7-children-usage": SUPERVISOR.limits["L7-children-usage-child"]}
    carrier = Carrier("service", service.exec, limits=limits)
    results = verify([carrier], cases=all_cases())["service"]
    judged = [result for result in results if result.verdict not in NO_VERDICT]
    assert [result for result in judged if not result.passes("service")] == []
    assert len(judged) > len(results) * 3 // 4

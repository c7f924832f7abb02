# SPDX-License-Identifier: MIT
"""`mlockwipe run` as a shell sees it: status, signals, what the program is given, and what is said."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlockwipe.supervisor import launch
from tests.support.c_programs import SOURCES
from tests.support.running import MLOCKWIPE, TIMEOUT, marked, run_bare, run_supervised
from tests.support.unprivileged import AS_NOBODY, mlockwipe_for_nobody, needs_nobody

IMPORTS = "import os, signal, sys\n"
LOCK = IMPORTS + "from mlockwipe.linux import mm; mm.mlock(mm.mmap(0, 4096, 3, 0x22), 4096)\n"
UNTIL_EOF = "sys.stdin.read()\n"


def python(source: str, *, locks: bool) -> list[str]:
    """A Python program that locks a page first, or does not."""
    return [sys.executable, "-c", (LOCK if locks else IMPORTS) + source]


both = pytest.mark.parametrize("locks", [False, True], ids=["never-locks", "locks"])
needs_libdw = pytest.mark.needs_library("libdw.so.1", "libdw1")


# -- how it ends


@both
@pytest.mark.parametrize("status", [0, 1, 3, 125, 126, 127, 255])
def test_the_status_is_the_programs_own(status: int, locks: bool) -> None:
    outcome = run_supervised(python(f"sys.exit({status})", locks=locks))
    assert outcome.status == status
    assert outcome.err == ""
    assert outcome.report["status"] == {"exit": status}
    assert outcome.report["processes_attached"] == int(locks)


@both
@pytest.mark.parametrize(
    "name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGSEGV", "SIGHUP", "SIGPIPE", "SIGABRT", "SIGUSR1"]
)
def test_the_shell_sees_the_signal_that_the_program_died_by(name: str, locks: bool) -> None:
    number = signal.Signals[name]
    outcome = run_supervised(
        python(f"signal.signal({number}, 0) if {number} != 9 else 0; os.kill(os.getpid(), {number})", locks=locks)
    )
    assert outcome.status == -number
    assert outcome.report["status"] == {"signal": number}


def test_a_command_that_is_not_found_is_127() -> None:
    outcome = run_supervised(["no-such-command-at-all"])
    assert outcome.status == 127
    assert outcome.err == "mlockwipe: no-such-command-at-all: command not found\n"
    assert run_supervised(["/no/such/path"]).status == 127


@pytest.mark.parametrize("verb", ["run", pytest.param("audit", marks=needs_libdw)])
def test_an_empty_command_is_127(verb: str) -> None:
    outcome = run_bare([MLOCKWIPE, verb, "--", ""])
    assert (outcome.status, outcome.err) == (127, "mlockwipe: '': command not found\n")


def test_a_script_whose_interpreter_is_missing_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    outcome = run_supervised([str(script)])
    assert outcome.status == 127
    assert outcome.err == f"mlockwipe: {script}: the interpreter that it names was not found\n"


def test_a_command_that_is_not_executable_is_126(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a program\n")
    outcome = run_supervised([str(file)])
    assert outcome.status == 126
    assert outcome.err == f"mlockwipe: {file}: Permission denied\n"
    assert run_supervised([str(tmp_path)]).status == 126


def test_a_script_without_its_first_line_is_run_by_the_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$1" "$2"; exit 4\n')
    script.chmod(0o755)
    outcome = run_supervised([str(script), "a b", "c"])
    assert (outcome.status, outcome.out) == (4, "a b c\n")


def test_a_report_that_cannot_be_written_is_said_before_the_start(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for report in (tmp_path / "no" / "report.json", tmp_path):
        outcome = run_bare([MLOCKWIPE, "run", "--report", str(report), "--", "touch", str(ran)])
        assert outcome.status == 125
        assert outcome.err.startswith(f"mlockwipe: the report {report} can't be written: ")
        assert outcome.err.count("\n") == 1
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device"])
def test_a_report_that_is_no_regular_file_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    terminal, device = os.openpty()  # of this test alone, in a file system where nobody can make a file
    if kind == "device":
        report = Path(os.ttyname(device))
    elif kind == "pipe":
        os.mkfifo(report)
    else:
        os.mkfifo(tmp_path / "pipe")
        report.symlink_to("pipe")
    before = report.lstat().st_ino
    outcome = run_bare([MLOCKWIPE, "run", "--report", str(report), "--", "touch", str(tmp_path / "ran")])
    assert outcome.status == 125
    assert outcome.err == f"mlockwipe: the report {report} can't be written: it is no regular file\n"
    assert report.lstat().st_ino == before
    os.close(terminal)
    os.close(device)
    assert not (tmp_path / "ran").exists()


@both
def test_a_report_keeps_its_mode_and_a_link_to_it_is_one(locks: bool, tmp_path: Path) -> None:
    report, link = tmp_path / "report", tmp_path / "link"
    report.touch(mode=0o640)
    link.symlink_to("report")
    outcome = run_bare([MLOCKWIPE, "run", "--report", str(link), "--", *python("sys.exit(6)", locks=locks)])
    assert outcome.status == 6
    assert link.is_symlink()
    assert json.loads(report.read_text())["status"] == {"exit": 6}
    assert report.stat().st_mode & 0o777 == 0o640


@both
def test_a_report_that_can_not_be_replaced_leaves_nothing_behind(locks: bool, tmp_path: Path) -> None:
    report = tmp_path / "report"
    source = f"os.remove({str(report)!r}); os.mkdir({str(report)!r})"
    outcome = run_bare([MLOCKWIPE, "run", "--report", str(report), "--", *python(source, locks=locks)])
    assert outcome.status == 0
    assert "the report can't be written" in outcome.err
    assert os.listdir(tmp_path) == ["report"]


@pytest.mark.parametrize(
    "words",
    ["run --report r --", pytest.param("audit --json r --", marks=needs_libdw), "verify --case W1-whole --json r"],
)
def test_a_report_in_a_directory_that_is_gone_is_refused(words: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    command = f"mkdir {gone} && cd {gone} && rmdir {gone} && exec {MLOCKWIPE} {words}"
    outcome = run_bare(["sh", "-c", command + (" true" if words.endswith("--") else "")])
    assert outcome.status == 125
    assert outcome.err.startswith("mlockwipe: the report r can't be written")
    assert outcome.err.count("\n") == 1


# -- too much for the supervisor


@needs_nobody
@pytest.mark.parametrize("room", [1, 2, 3])
def test_without_room_for_its_processes_a_sentence_says_so(room: int) -> None:
    """The front is one process, and makes the guardian, which makes the supervisor, which makes the program."""
    with mlockwipe_for_nobody() as command:
        outcome = run_bare([*AS_NOBODY, "prlimit", f"--nproc={room}", "--", *command, "run", "--", "/bin/true"])
    assert outcome.status == 125
    assert outcome.err.startswith(
        "mlockwipe: no more processes can be made here (Resource temporarily unavailable): "
    )
    assert outcome.err.count("\n") == 1


@both
@pytest.mark.parametrize("kibibytes", [100_000, 200_000])
def test_little_address_space_is_no_reason_not_to_start(kibibytes: int, locks: bool) -> None:
    run = f'ulimit -v {kibibytes}; exec {MLOCKWIPE} run -- "$@"'
    outcome = run_bare(["sh", "-c", run, "sh", *python("sys.exit(7)", locks=locks)])
    assert (outcome.status, outcome.err) == (7, "")


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ("-n 7", "only 7 files may be open, which is too few to supervise anything: ulimit -n 64"),
        ("-f 0", "is the size of files limited (ulimit -f)?"),
    ],
)
def test_a_limit_that_leaves_no_room_to_start_is_named(limit: str, sentence: str) -> None:
    outcome = run_bare(["sh", "-c", f"ulimit {limit}; exec {MLOCKWIPE} run -- /bin/true"])
    assert outcome.status == 125
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_more_processes_than_there_are_descriptors_for_are_not_all_protected_and_go_on(
    strict: bool, tmp_path: Path
) -> None:
    """Whatever the limit leaves after the last keeper: it is enough to look at the next process."""
    children = """
there, born = os.pipe()
def child():
    try:
        mm.mlock(mm.mmap(0, 4096, 3, 0x22), 4096)
        os.write(born, b"locked ")
    except PermissionError:
        os.write(born, b"refused")
    signal.pause()
pids = [os.fork() or child() for _ in range(16)]
print(*sorted(os.read(there, 7).decode() for pid in pids))
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
sys.exit(7)
"""
    report = tmp_path / "report.json"
    for limit in range(56, 64):
        run = f'ulimit -n {limit}; exec {MLOCKWIPE} run --report {report} {"--strict" * strict} -- "$@"'
        outcome = run_bare(["sh", "-c", run, "sh", *python(children, locks=True)])
        assert outcome.status == 7
        assert "Too many open files" in outcome.err
        locked, refused = outcome.out.count("locked"), outcome.out.count("refused")
        wiped = json.loads(report.read_text())["pages_wiped"]["SIGKILL"] // 2  # its own page and the inherited one
        assert 0 < wiped < 16
        assert (locked, refused) == ((wiped, 16 - wiped) if strict else (16, 0))


# -- what it is given


@both
def test_the_program_is_given_what_it_would_be_given_bare(tmp_path: Path, locks: bool) -> None:
    file = (tmp_path / "inherited").open("w")
    fd = 57
    os.dup2(file.fileno(), fd, inheritable=True)
    command = [sys.executable, str(SOURCES / "bystander.py"), *(["locks"] if locks else ["idles"]), "an argument", ""]

    def strange() -> None:
        os.umask(0o037)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGUSR1, signal.SIGALRM])
        os.nice(1)
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])

    def seen(prefix: list[str]) -> dict[str, Any]:
        with marked() as processes, (tmp_path / "out").open("w+") as out:
            done = subprocess.run(
                [*prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                pass_fds=(fd,),
                cwd=tmp_path,
                env={**processes.environment, "MLOCKWIPE_TEST": processes.mark, "EMPTY": "", "STRANGE": "\udcff\n"},
                preexec_fn=strange,
                timeout=TIMEOUT,
            )
            assert done.returncode == 0, done.stderr
            out.seek(0)
            found: dict[str, Any] = json.load(out)
        del found["environment"]["MLOCKWIPE_TEST"]
        found["descriptors"].pop("2")  # a pipe, another one each time
        return found

    try:
        assert seen([MLOCKWIPE, "run", "--"]) == seen([])
    finally:
        os.close(fd)


def test_a_reader_that_goes_away_ends_the_program_by_sigpipe() -> None:
    script = f"{' '.join([MLOCKWIPE, 'run', '--'])} yes | head -1; echo ${{PIPESTATUS[0]}}"
    outcome = run_bare(["bash", "-c", script])
    assert outcome.out == f"y\n{128 + signal.SIGPIPE}\n"


# -- its pipes


@both
def test_nobody_else_holds_its_output_open(locks: bool) -> None:
    """End of file comes when the program closes its output, while it runs on."""
    with marked() as processes:
        program = subprocess.Popen(
            [MLOCKWIPE, "run", "--", *python("os.close(1); os.close(2); " + UNTIL_EOF, locks=locks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=processes.environment,
        )
        assert program.stdout is not None
        assert program.stdout.read() == b""
        assert program.poll() is None
        program.communicate(timeout=TIMEOUT)
        assert program.returncode == 0


@both
def test_nobody_else_holds_its_input_open(locks: bool) -> None:
    """The writer gets SIGPIPE when the program closes its input, while it runs on."""
    end_read, end_write = os.pipe()
    with marked() as processes:
        source = f"os.close(0); os.write(1, b'.'); os.read({end_read}, 1)"
        program = subprocess.Popen(
            [MLOCKWIPE, "run", "--", *python(source, locks=locks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(end_read,),
            env=processes.environment,
        )
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.read(1)
        with pytest.raises(BrokenPipeError):
            os.write(program.stdin.fileno(), b"x")
        os.write(end_write, b".")
        program.stdout.close()
        assert program.wait(TIMEOUT) == 0
    os.close(end_read)
    os.close(end_write)


@both
def test_the_front_returns_while_a_daemon_lives_on(locks: bool) -> None:
    end_read, end_write = os.pipe()
    source = f"""
os.close({end_write})
if os.fork() == 0:
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2): os.dup2(null, fd)
    os.read({end_read}, 1)
    os._exit(0)
print("started", flush=True)
os._exit(6)
"""
    with marked() as processes:
        program = subprocess.run(
            [MLOCKWIPE, "run", "--", *python(source, locks=locks)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(end_read, end_write),
            env=processes.environment,
            timeout=TIMEOUT,
        )
        assert (program.returncode, program.stdout, program.stderr) == (6, b"started\n", b"")
        assert processes.named(Path(sys.executable).resolve().name) or len(processes.processes()) >= 3
        os.close(end_write)
        os.close(end_read)


# -- signals to it

COUNTS = """
import json
counts = {}
def count(number, frame): counts[number] = counts.get(number, 0) + 1
for name in "TERM USR1 HUP INT WINCH CONT".split(): signal.signal(getattr(signal, "SIG" + name), count)
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(counts), flush=True)
"""


@both
@pytest.mark.parametrize("target", ["front", "group"])
def test_a_signal_arrives_exactly_once(target: str, locks: bool) -> None:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGWINCH)
    with marked() as processes:
        program = subprocess.Popen(
            [MLOCKWIPE, "run", "--", *python(COUNTS, locks=locks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=processes.environment,
            process_group=0,
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        for number in numbers:
            if target == "front":
                program.send_signal(number)
            else:
                os.killpg(program.pid, number)
        _await_forwarded(program.pid)
        out, _ = program.communicate("go on\n", timeout=TIMEOUT)
        assert program.returncode == 0
    assert json.loads(out) == {str(int(number)): 1 for number in numbers}


def _await_forwarded(front: int) -> None:
    """Return when the front has taken the signals sent to it: it keeps them blocked and reads them from a file."""
    while True:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{front}/status").read_text().splitlines())
        if int(status["ShdPnd"], 16) == 0 and status["State"].startswith("S"):
            return
        os.sched_yield()


@both
def test_sigkill_to_the_front_kills_the_program(locks: bool) -> None:
    with marked() as processes:
        program = subprocess.Popen(
            [MLOCKWIPE, "run", "--", *python("print('ready', flush=True); signal.pause()", locks=locks)],
            stdout=subprocess.PIPE,
            env=processes.environment,
        )
        assert program.stdout is not None
        program.stdout.readline()
        program.kill()
        program.communicate(timeout=TIMEOUT)
    # `marked` has seen that nothing is left


@both
@pytest.mark.needs_program("timeout", "coreutils")
def test_timeout_ends_it(locks: bool) -> None:
    command = ["timeout", "2", MLOCKWIPE, "run", "--", *python("signal.pause()", locks=locks)]
    assert run_bare(command).status == 124


# -- company


def test_without_room_for_the_program_itself_it_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the test above the kernel may still count processes that have ended, and refuse an earlier one."""

    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(launch.NotStarted, match="no more processes can be made here") as said:
        launch.start(["/bin/true"], b"", set(), os.getpid())
    assert said.value.status == 125


def test_a_report_of_a_run_within_a_run_is_not_begun(tmp_path: Path) -> None:
    report = str(tmp_path / "inner")
    outcome = run_supervised([MLOCKWIPE, "run", "-q", "--report", report, "--", "true"])
    assert (outcome.status, outcome.err) == (
        0,
        f"mlockwipe: the report {report} is not written, but the outer one's\n",
    )
    assert not os.path.exists(report)


@both
def test_a_run_within_a_run_says_so_and_works(locks: bool) -> None:
    outcome = run_supervised([MLOCKWIPE, "run", "--", *python("print('works'); sys.exit(5)", locks=locks)])
    assert (outcome.status, outcome.out) == (5, "works\n")
    assert outcome.err == "mlockwipe: an outer mlockwipe run protects this command already\n"
    assert outcome.report["processes_attached"] == int(locks)


def test_a_run_under_a_program_that_takes_the_name_of_a_supervisor_protects() -> None:
    source = f"""
import subprocess
from mlockwipe.linux import prctl
prctl.set_name(b"mlockwipe-super")
sys.exit(subprocess.call({[MLOCKWIPE, "run", "-v", "--", *python("", locks=True)]!r}))
"""
    outcome = run_bare(python(source, locks=False))
    assert (outcome.status, outcome.err) == (
        0,
        "mlockwipe: processes attached: 1; pages wiped: 1 (exit 1); could not be protected: 0\n",
    )


def test_a_nested_run_of_no_command_is_127() -> None:
    outcome = run_supervised([MLOCKWIPE, "run", "--", "no-such-command"])
    assert outcome.status == 127
    assert outcome.err.endswith("mlockwipe: no-such-command: command not found\n")


@pytest.mark.parametrize("name", ["LISTEN_PID", "WATCHDOG_PID"])
def test_what_a_service_manager_gave_to_it_is_for_the_program(name: str) -> None:
    outcome = run_bare(
        ["sh", "-c", f'export {name}=$$; exec "$@"', "sh", MLOCKWIPE, "run", "--", "sh", "-c", f"echo ${name} $$"]
    )
    named, program = outcome.out.split()
    assert named == program


def test_what_is_for_another_process_stays_so() -> None:
    outcome = run_supervised(["sh", "-c", "echo $LISTEN_PID"], env={"LISTEN_PID": "1"})
    assert outcome.result == (0, "1\n")


@pytest.mark.needs_pid_namespace
def test_process_1_says_once_what_it_does_not_survive() -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", MLOCKWIPE, "run"]
    assert "this is process 1 of a container" in run_bare([*command, "--", "true"]).err
    assert run_bare([*command, "-q", "--", "true"]).err == ""
    assert run_bare([MLOCKWIPE, "run", "--", "true"], env={"INVOCATION_ID": "1"}).err == ""

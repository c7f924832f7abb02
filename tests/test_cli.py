# SPDX-License-Identifier: MIT
"""The command line: usage, exit statuses and help; and what `mlockwipe run` must not import."""

import json
import os
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlockwipe
from mlockwipe import cli, verbs
from mlockwipe.errors import Refused
from mlockwipe.supervisor.options import Options
from mlockwipe.verbs import kernel, kernel_module, lab
from mlockwipe.verbs.parser import Verb
from mlockwipe.verbs.run import VERB as RUN

VERBS = ["run", "exec", "serve", "oci", "audit", "attach", "verify", "status", "lab", "kernel", "completion"]


class Front(types.ModuleType):
    """A stand-in for mlockwipe.supervisor.front: it keeps the options and ends as it is told."""

    def __init__(self, outcome: int | Callable[[], int]) -> None:
        super().__init__("mlockwipe.supervisor.front")
        self.seen: list[dict[str, Any]] = []
        self.outcome = outcome

    def run(self, options: Options) -> int:
        self.seen.append(vars(options))
        return self.outcome if isinstance(self.outcome, int) else self.outcome()


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Front:
    front = Front(0)
    monkeypatch.setitem(sys.modules, "mlockwipe.supervisor.front", front)
    return front


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence that goes with status 2; the usage must stand before it, and nothing on stdout."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    usage, _, sentence = err.rstrip("\n").rpartition("\n")
    assert usage.startswith("usage: mlockwipe")
    assert sentence.startswith("mlockwipe")
    return sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            [],
            "no verb given: it is one of " + ", ".join(VERBS),
        ),
        ([""], "no verb given"),
        (["fun"], "there is no verb 'fun'"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--bogus", "run"], "unrecognized arguments: --bogus"),
        (["--", "run"], "mlockwipe: "),
        (["run"], "no command given"),
        (["run", "--"], "no command given"),
        (["run", "--strict"], "no command given"),
        (["run", "--bogus", "ls"], "unrecognized arguments: --bogus"),
        (["run", "--stri", "ls"], "unrecognized arguments: --stri"),
        (["run", "--report"], "argument --report: expected one argument"),
        (["run", "-q", "-v", "ls"], "argument -v/--verbose: not allowed with argument -q/--quiet"),
        (["verify", "--carrier", "hope"], "invalid choice: 'hope'"),
        (["verify", "W1"], "unrecognized arguments: W1"),
        (["status", "--xml"], "unrecognized arguments: --xml"),
        (
            ["lab"],
            "mlockwipe lab: the following arguments are required: verify|keys|bench; see 'mlockwipe lab --help'",
        ),
        (["lab", "fun"], "invalid choice: 'fun'"),
        (["kernel"], "the following arguments are required: patch|build"),
        (["kernel", "build", "--series", "5.4"], "argument --series: invalid choice: '5.4'"),
        (["kernel", "patch", "--config", "lab"], "unrecognized arguments: --config lab"),
        (["lab", "verify", "--carrier", "hope"], "mlockwipe lab verify: argument --carrier: invalid choice: 'hope'"),
        (["lab", "verify", "--manager", "gpg"], "unrecognized arguments: --manager"),
        (["lab", "keys", "--case", "W1"], "unrecognized arguments: --case W1"),
        (["lab", "keys", "--mana", "gpg"], "unrecognized arguments: --mana gpg"),
        (["completion"], "the following arguments are required"),
        (["completion", "fish"], "invalid choice: 'fish'"),
    ],
)
def test_usage_error_is_one_sentence_with_status_2(
    capsys: pytest.CaptureFixture[str], front: Front, arguments: list[str], sentence: str
) -> None:
    assert sentence in usage_error(capsys, *arguments)
    assert front.seen == []


def options(**changes: Any) -> dict[str, Any]:
    plain = {"command": ["ls"], "strict": False, "unmap": True, "report": None, "watch": None, "verbosity": 0}
    return {**plain, "with_arguments": False, **changes}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ls"], options()),
        (["--", "ls"], options()),
        (["--strict", "--", "ls"], options(strict=True)),
        (["--no-unmap", "ls"], options(unmap=False)),
        (["--report", "r.json", "ls"], options(report="r.json")),
        (["--report", "-", "ls"], options(report="-")),
        (["--with-arguments", "ls"], options(with_arguments=True)),
        (["--report=r.json", "--", "ls"], options(report="r.json")),
        (["-q", "ls"], options(verbosity=-1)),
        (["-v", "ls"], options(verbosity=1)),
        (["-vv", "ls"], options(verbosity=1)),
        (["-q", "--quiet", "--strict", "--strict", "ls"], options(verbosity=-1, strict=True)),
        (["-"], options(command=["-"])),
        (["ls", "-v", "--strict", "--report"], options(command=["ls", "-v", "--strict", "--report"])),
        (["ls", "--help"], options(command=["ls", "--help"])),
        (["sh", "-c", "x", "--", "y"], options(command=["sh", "-c", "x", "--", "y"])),
        (["--", "sh", "--", "y"], options(command=["sh", "--", "y"])),
        (["--", "--strict"], options(command=["--strict"])),
        (["--", "--", "ls"], options(command=["--", "ls"])),
        (["ls", ""], options(command=["ls", ""])),
    ],
)
def test_run_hands_over_its_options_and_leaves_the_command_alone(
    front: Front, arguments: list[str], expected: dict[str, Any]
) -> None:
    assert cli.main(["run", *arguments]) == 0
    assert front.seen == [expected]


WORDS = [
    "--",
    "-",
    "",
    "ls",
    "-q",
    "--quiet",
    "-v",
    "-vq",
    "--verbose",
    "--strict",
    "--stri",
    "--no-unmap",
    "--with-arguments",
    "--report",
]
WORDS += ["--report=", "--report=r", "--report=-", "--strict=1", "-1", "-x y", "--help", "r.json", "-qls", "--bogus"]


@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_plain_options_are_those_of_the_parser(words: list[str]) -> None:
    plain = cli.plain_options(words)
    if plain is not None:
        assert vars(plain) == vars(RUN.options(RUN.parser().parse_args(words)))


@pytest.mark.parametrize("words", [["ls"], ["-q", "--strict", "--no-unmap", "--report", "r", "--", "ls", "-v"]])
def test_usual_options_are_plain(words: list[str]) -> None:
    assert cli.plain_options(words) is not None


@pytest.mark.parametrize("status", [0, 1, 2, 3, 126, 127, 137, 255])
def test_run_ends_with_the_status_of_the_command(front: Front, status: int) -> None:
    front.outcome = status
    assert cli.main(["run", "ls"]) == status


def test_refused_is_a_sentence_with_status_125(capsys: pytest.CaptureFixture[str], front: Front) -> None:
    def refuse() -> int:
        raise Refused("seccomp is refused here: allow it in the container's profile")

    front.outcome = refuse
    assert cli.main(["run", "ls"]) == 125
    assert capsys.readouterr().err == "mlockwipe: seccomp is refused here: allow it in the container's profile\n"


def test_a_defect_of_ours_is_never_taken_for_the_status_of_the_command(
    capsys: pytest.CaptureFixture[str], front: Front
) -> None:
    def crash() -> int:
        raise ZeroDivisionError

    front.outcome = crash
    assert cli.main(["run", "ls"]) == 125
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert err.endswith("please report the lines above\n")


def test_interrupt_ends_as_a_shell_says_it(front: Front) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    front.outcome = interrupt
    assert cli.main(["run", "ls"]) == 130


@pytest.mark.parametrize("verb", [*VERBS, "lab verify", "lab keys"])
def test_help_describes_the_verb_and_has_an_example(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*verb.split(), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mlockwipe {verb} ")
    _, _, example = text.partition("\nexample:\n")
    assert f"mlockwipe {verb} " in example
    assert text.split("\n\n")[1].endswith(".")


def parse_example(verb: Verb) -> list[str]:
    """Parse a verb's example as far as it is for mlockwipe: its words."""
    words = verb.example.replace("'", "").split()
    for mark in ("|", ">"):
        words = words[: words.index(mark)] if mark in words else words
    assert words[0] == "mlockwipe"
    verbs.load(words[1]).parser().parse_args(words[2:])
    return words[1:]


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_the_help_is_valid_usage(verb: str) -> None:
    assert parse_example(verbs.load(verb))[0] == verb


@pytest.mark.parametrize(
    "below", [*lab.VERB.below, *kernel.VERB.below, *kernel_module.Module.below], ids=lambda below: str(below.name)
)
def test_the_example_of_a_verb_below_is_valid_usage(below: Verb) -> None:
    path = below.name.split()
    assert parse_example(below)[: len(path)] == path


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_in_a_file_of_its_name_and_has_its_parser(verb: str) -> None:
    module = sys.modules[type(verbs.load(verb)).__module__]
    assert module.__name__ == verbs.VERBS[verb] == f"mlockwipe.verbs.{verb}"
    assert verbs.load(verb) is module.VERB
    assert verbs.load(verb).parser().prog == f"mlockwipe {verb}"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_called_without_the_import_of_another(verb: str) -> None:
    script = f"""
import sys
from mlockwipe import cli
try:
    cli.main([{verb!r}, "--help"])
except SystemExit:
    print("imported:", *(name for name in sys.modules if name.startswith("mlockwipe.verbs.")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = set(done.stdout.rpartition("imported:")[2].split())
    assert f"mlockwipe.verbs.{verb}" in imported
    below = {"kernel": {"kernel_module"}}.get(verb, set())
    shared = {"parser", "stdout"}
    assert imported <= {f"mlockwipe.verbs.{name}" for name in {verb} | below | shared}


def test_the_list_of_verbs_is_made_by_the_import_of_them_all() -> None:
    """The control of the test above: such an import would be seen."""
    script = "import sys; from mlockwipe import verbs; verbs.top_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {f"mlockwipe.verbs.{verb}" for verb in VERBS} <= set(done.stdout.split())


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in VERBS)
    assert list(verbs.VERBS) == VERBS
    assert "\nexample:\n" in text


@pytest.mark.parametrize("columns", ["0", "20", "nonsense", "200"])
def test_help_takes_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    assert "--strict" in capsys.readouterr().out


def test_version_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mlockwipe {mlockwipe.__version__}\n"
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == mlockwipe.__version__


# completion


def completion(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_verb(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    script = completion(capsys, shell)
    assert all(verb in script for verb in VERBS)
    assert "no-unmap" in script


def test_completion_is_bash(capsys: pytest.CaptureFixture[str]) -> None:
    def is_bash(script: str) -> bool:
        done = subprocess.run(["bash", "-n"], input=script, text=True, stderr=subprocess.DEVNULL)
        return done.returncode == 0

    script = completion(capsys, "bash")
    assert is_bash(script)
    assert not is_bash(script + "(")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], {"status"}),
        (["verify", "--carrier", ""], {"none", "supervisor"}),
        (["run", "--no"], {"--no-unmap"}),
        (["completion", "z"], {"zsh"}),
        (["run", "compge"], {"compgen"}),
        (["lab", "k"], {"keys"}),
        (["kernel", "b"], {"build"}),
        (["kernel", "patch", "--s"], {"--series"}),
        (["lab", "keys", "--man"], {"--manager"}),
        (["lab", "verify", "--carrier", "s"], {"supervisor"}),
    ],
)
def test_bash_completes(capsys: pytest.CaptureFixture[str], words: list[str], expected: set[str]) -> None:
    script = completion(capsys, "bash")
    script += 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_mlockwipe; printf "%s\\n" "${COMPREPLY[@]}"\n'
    done = subprocess.run(
        ["bash", "-s", "mlockwipe", *words], input=script, text=True, capture_output=True, check=True
    )
    assert set(done.stdout.split()) == expected


# status


def test_status_prints_json_with_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["checks"]


def test_status_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == 0
    assert "init_on_free" in capsys.readouterr().out


# As a process


def mlockwipe_process(*arguments: str, **how: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "mlockwipe", *arguments], text=True, **how)


def test_the_module_is_the_command() -> None:
    assert mlockwipe_process("--version", capture_output=True).stdout == f"mlockwipe {mlockwipe.__version__}\n"
    assert mlockwipe_process("fun", stderr=subprocess.DEVNULL).returncode == 2


def test_a_reader_that_has_seen_enough_gives_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mlockwipe", "status", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def test_a_full_disk_is_a_sentence_with_status_125() -> None:
    with open("/dev/full", "w") as full:
        done = mlockwipe_process("status", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 125
    assert done.stderr == "mlockwipe: writing to stdout failed: No space left on device\n"


def test_run_ends_without_the_end_of_the_interpreter_but_with_all_that_was_printed() -> None:
    script = """
import atexit, sys, types
atexit.register(print, "at exit")
front = types.ModuleType("mlockwipe.supervisor.front")
front.run = lambda options: print("out", end="") or print("err", end="", file=sys.stderr) or 7
sys.modules[front.__name__] = front
from mlockwipe import cli
sys.argv = ["mlockwipe", "run", "--", "true"]
if "returns" in sys.orig_argv:
    sys.exit(cli.main(sys.argv[1:]))
cli.main()
"""
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "out", "err")
    returned = subprocess.run([*command, "returns"], capture_output=True, text=True)
    assert (returned.returncode, returned.stdout, returned.stderr) == (7, "outat exit\n", "err")


# collections, enum and functools are what makes the others heavy
HEAVY = {"rich", "shtab", "json", "subprocess", "shutil", "typing", "dataclasses", "inspect", "pathlib", "argparse"}
HEAVY |= {"re", "contextlib", "signal", "socket", "collections", "enum", "functools"}


def test_run_imports_nothing_heavy_until_the_program_is_started() -> None:
    script = """
import os, sys
before = set(sys.modules)
from mlockwipe import cli
from mlockwipe.supervisor import launch

def start(*_):
    os.write(1, " ".join(set(sys.modules) - before).encode())
    raise launch.NotStarted(9, "it has told enough")

launch.start = start
sys.exit(cli.main(["run", "--strict", "-q", "--", "true", "-x"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (9, "mlockwipe: it has told enough\n")
    imported = set(done.stdout.split())
    assert "mlockwipe.supervisor.front" in imported
    assert not imported & HEAVY


def test_a_stdout_that_has_no_such_character_gets_another() -> None:
    """As of a command that rich has shortened."""
    source = "from mlockwipe.verbs.stdout import Stdout\nwith Stdout(): print('a\\N{HORIZONTAL ELLIPSIS}')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("a?\n", "")


@pytest.mark.parametrize("pid", ["0", "one", "1.5", "9" * 5000])
def test_what_is_no_process_id_is_a_mistake_of_usage(pid: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["attach", pid])
    assert ended.value.code == 2
    assert f"'{pid}' is no process id" in capsys.readouterr().err

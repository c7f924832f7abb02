# SPDX-License-Identifier: MIT
"""`mlockwipe status` on made-up machines: every state of every check, and every parser."""

import errno
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mlockwipe.requirements import parse_release
from mlockwipe.status import Check, Machine, inspect, to_json
from mlockwipe.status.checks import CHECKS, run_checks
from mlockwipe.status.machine import (
    Limit,
    Swap,
    parse_bool,
    parse_boot_line,
    parse_config,
    parse_fields,
    parse_limits,
    parse_swaps,
    try_libseccomp,
    try_memfd_secret,
    try_seccomp_notification,
    unescape,
)
from mlockwipe.status.processes import locked_processes
from mlockwipe.status.status_table import print_status

LIMITS = (
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max core file size        {core:<21}unlimited            bytes     \n"
    "Max locked memory         {memlock:<21}unlimited            bytes     \n"
)
SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

# A machine where every check is 'good', but for the facts that only 'info' can be.
SOUND = {
    "proc/sys/kernel/osrelease": "6.12.3-amd64\n",
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet init_on_free=1\n",
    "boot/config-6.12.3-amd64": "# CONFIG_INIT_ON_FREE_DEFAULT_ON is not set\nCONFIG_INIT_ON_ALLOC_DEFAULT_ON=y\n",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno user_notif trace log allow\n",
    "proc/sys/kernel/yama/ptrace_scope": "1\n",
    "proc/sys/kernel/core_pattern": "core\n",
    "proc/sys/vm/compact_unevictable_allowed": "0\n",
    "proc/self/limits": LIMITS.format(core="0", memlock="8388608"),
    "proc/swaps": SWAPS,
    "sys/module/init_mlocked_on_free/parameters/enabled": "Y\n",
    "sys/module/zswap/parameters/enabled": "N\n",
    "sys/power/state": "freeze mem\n",
    "sys/kernel/mm/ksm/run": "0\n",
}


class Tree:
    """A /proc, /sys and /boot, made of SOUND with changes; None takes a file away."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def machine(
        self,
        changes: dict[str, str | None] | None = None,
        *,
        architecture: str = "x86_64",
        may_trace: bool = True,
        memfd_secret: int = 0,
        seccomp_notification: int = 0,
        libseccomp: str | None = "2.5.4",
    ) -> Machine:
        for path, text in {**SOUND, **(changes or {})}.items():
            if text is not None:
                self.write(path, text)
        return Machine(
            root=self.root,
            architecture=architecture,
            may_trace=lambda: may_trace,
            memfd_secret=lambda: memfd_secret,
            seccomp_notification=lambda: seccomp_notification,
            libseccomp=lambda: libseccomp,
        )

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def process(self, pid: int, name: str, *, locked: int | None = 0, tracer: int = 0, command: str = "") -> None:
        lock = "" if locked is None else f"VmLck:\t{locked:8} kB\n"
        self.write(f"proc/{pid}/status", f"Name:\t{name}\nTracerPid:\t{tracer}\nUid:\t0\t0\t0\t0\n{lock}")
        self.write(f"proc/{pid}/cmdline", command)
        self.write(f"proc/{pid}/comm", f"{name}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def look(machine: Machine, name: str) -> Check:
    (check,) = [check for check in run_checks(machine) if check.name == name]
    return check


def test_a_sound_machine_has_nothing_to_be_done(tree: Tree) -> None:
    checks = run_checks(tree.machine())
    assert [check.name for check in checks] == list(CHECKS)
    assert {check.name: check.state for check in checks if check.state != "good"} == {"init_on_alloc": "info"}


ZRAM = SWAPS + "/dev/zram0                              partition\t2097148\t\t0\t\t100\n"
DISK = SWAPS + "/dev/dm-1                               partition\t1048572\t\t0\t\t-2\n"
FILE = SWAPS + "/swap\\040file                           file\t\t524284\t\t0\t\t-2\n"
CRYPT = {"proc/swaps": DISK, "sys/class/block/dm-1/dm/uuid": "CRYPT-PLAIN-swap\n"}
OPTION = "sys/module/init_mlocked_on_free/parameters/enabled"
CONFIG = "boot/config-6.12.3-amd64"


@pytest.mark.parametrize(
    ("name", "changes", "state", "value"),
    [
        ("kernel", {"proc/sys/kernel/osrelease": "5.18.19\n"}, "bad", "5.18.19 x86_64"),
        ("kernel", {"proc/sys/kernel/osrelease": "5.19.0\n"}, "good", "5.19.0 x86_64"),
        ("kernel", {"proc/sys/kernel/osrelease": "next\n"}, "unknown", "next x86_64"),
        ("kernel", {"proc/sys/kernel/osrelease": None}, "unknown", "No such file or directory"),
        (
            "seccomp user notification",
            {"proc/sys/kernel/seccomp/actions_avail": "trap errno trace log allow\n"},
            "bad",
            "not in this kernel",
        ),
        (
            "seccomp user notification",
            {"proc/sys/kernel/seccomp/actions_avail": None},
            "bad",
            "not in this kernel",
        ),
        ("Yama ptrace_scope", {"proc/sys/kernel/yama/ptrace_scope": None}, "warn", "no Yama"),
        ("Yama ptrace_scope", {"proc/sys/kernel/yama/ptrace_scope": "0\n"}, "warn", "0, same user"),
        ("Yama ptrace_scope", {"proc/sys/kernel/yama/ptrace_scope": "2\n"}, "good", "2, root only"),
        ("Yama ptrace_scope", {"proc/sys/kernel/yama/ptrace_scope": "3\n"}, "bad", "3, nobody"),
        ("Yama ptrace_scope", {"proc/sys/kernel/yama/ptrace_scope": "4\n"}, "unknown", "4"),
        ("init_mlocked_on_free", {OPTION: "N\n"}, "bad", "loaded, but off"),
        ("init_mlocked_on_free", {OPTION: None}, "info", "not in this kernel"),
        (
            "init_mlocked_on_free",
            {OPTION: None, "sys/module/init_mlocked_on_free/refcnt": "0\n"},
            "unknown",
            "loaded",
        ),
        (
            "init_mlocked_on_free",
            {OPTION: None, "proc/cmdline": "init_mlocked_on_free=1\n"},
            "bad",
            "on the boot line, but not in this kernel",
        ),
        (
            "init_mlocked_on_free",
            {OPTION: None, CONFIG: None, "proc/cmdline": "init_mlocked_on_free=1\n"},
            "unknown",
            "on the boot line",
        ),
        (
            "init_mlocked_on_free",
            {OPTION: None, CONFIG: "# CONFIG_INIT_MLOCKED_ON_FREE_DEFAULT_ON is not set\n"},
            "bad",
            "in this kernel, but off",
        ),
        (
            "init_mlocked_on_free",
            {OPTION: None, CONFIG: "CONFIG_INIT_MLOCKED_ON_FREE_DEFAULT_ON=y\n"},
            "good",
            "on",
        ),
        (
            "init_mlocked_on_free",
            {
                OPTION: None,
                CONFIG: "# CONFIG_INIT_MLOCKED_ON_FREE_DEFAULT_ON is not set\n",
                "proc/cmdline": "init_mlocked_on_free=on\n",
            },
            "good",
            "on",
        ),
        ("init_on_free", {"proc/cmdline": "quiet\n"}, "warn", "off"),
        ("init_on_free", {"proc/cmdline": "init_on_free=1 init_on_free=0\n"}, "warn", "off"),
        ("init_on_free", {"proc/cmdline": "quiet -- init_on_free=1\n"}, "warn", "off"),
        (
            "init_on_free",
            {"proc/cmdline": "quiet\n", CONFIG: "CONFIG_INIT_ON_FREE_DEFAULT_ON=y\n"},
            "good",
            "on",
        ),
        ("init_on_free", {"proc/cmdline": "quiet\n", CONFIG: None}, "unknown", "no kernel configuration"),
        ("init_on_free", {"proc/sys/kernel/osrelease": "4.19.0\n"}, "warn", "off"),
        ("init_on_alloc", {"proc/cmdline": "init_on_alloc=0\n"}, "info", "off"),
        ("init_on_alloc", {CONFIG: None}, "unknown", "no kernel configuration"),
        (
            "RLIMIT_MEMLOCK",
            {"proc/self/limits": LIMITS.format(core="0", memlock="65536")},
            "warn",
            "64 KiB",
        ),
        (
            "RLIMIT_MEMLOCK",
            {"proc/self/limits": LIMITS.format(core="0", memlock="unlimited")},
            "good",
            "unlimited",
        ),
        ("RLIMIT_MEMLOCK", {"proc/self/limits": "Limit\n"}, "unknown", "no line 'Max locked memory'"),
        ("swap", {"proc/swaps": None}, "good", "none"),
        ("swap", {"proc/swaps": ZRAM}, "good", "none"),
        ("swap", {"proc/swaps": DISK}, "warn", "/dev/dm-1 1023 MiB"),
        ("swap", {"proc/swaps": FILE}, "warn", "/swap file 511 MiB"),
        ("swap", CRYPT, "good", "/dev/dm-1 1023 MiB (dm-crypt)"),
        ("zram", {"proc/swaps": ZRAM}, "warn", "/dev/zram0 2047 MiB"),
        ("zswap", {"sys/module/zswap/parameters/enabled": None}, "good", "not in this kernel"),
        ("zswap", {"sys/module/zswap/parameters/enabled": "Y\n"}, "good", "on, but no swap is in use"),
        ("zswap", {"sys/module/zswap/parameters/enabled": "Y\n", "proc/swaps": DISK}, "warn", "on"),
        ("hibernation", {"sys/power/state": None}, "good", "not available"),
        ("hibernation", {"sys/power/state": "mem disk\n"}, "info", "available"),
        (
            "hibernation",
            {"sys/power/state": "mem disk\n", "sys/power/disk": "[disabled]\n"},
            "good",
            "disabled",
        ),
        (
            "hibernation",
            {"sys/power/state": "mem disk\n", "sys/power/disk": "[platform] shutdown\n", "proc/swaps": DISK},
            "warn",
            "available",
        ),
        ("hibernation", {"sys/power/state": "mem disk\n", **CRYPT}, "info", "available"),
        ("core dumps", {"proc/sys/kernel/core_pattern": None}, "good", "not in this kernel"),
        (
            "core dumps",
            {"proc/sys/kernel/core_pattern": "|/usr/lib/systemd/systemd-coredump %P\n"},
            "warn",
            "piped to /usr/lib/systemd/systemd-coredump",
        ),
        (
            "core dumps",
            {"proc/self/limits": LIMITS.format(core="unlimited", memlock="0")},
            "warn",
            "RLIMIT_CORE unlimited",
        ),
        ("KSM", {"sys/kernel/mm/ksm/run": None}, "good", "not in this kernel"),
        ("KSM", {"sys/kernel/mm/ksm/run": "1\n"}, "warn", "running"),
        ("KSM", {"sys/kernel/mm/ksm/run": "2\n"}, "good", "not running"),
        ("KSM", {"sys/kernel/mm/ksm/run": "7\n"}, "unknown", "7"),
        (
            "compact_unevictable_allowed",
            {"proc/sys/vm/compact_unevictable_allowed": None},
            "good",
            "no compaction",
        ),
        ("compact_unevictable_allowed", {"proc/sys/vm/compact_unevictable_allowed": "1\n"}, "good", "1"),
        (
            "compact_unevictable_allowed",
            {"proc/sys/vm/compact_unevictable_allowed": "1\n", "proc/cmdline": "quiet\n"},
            "warn",
            "1",
        ),
    ],
)
def test_state(tree: Tree, name: str, changes: dict[str, str | None], state: str, value: str) -> None:
    release = (changes.get("proc/sys/kernel/osrelease") or "").strip()
    if release:
        changes = {**changes, f"boot/config-{release}": SOUND[CONFIG]}
    check = look(tree.machine(changes), name)
    assert (check.state, check.value) == (state, value)
    assert check.advice.endswith(".")
    if check.state in ("warn", "bad"):
        assert not check.advice.startswith("Nothing to do")


def test_probes_decide_where_files_cannot(tree: Tree) -> None:
    machine = tree.machine(memfd_secret=errno.ENOSYS, seccomp_notification=errno.EPERM, libseccomp=None)
    assert look(machine, "memfd_secret").state == "info"
    assert look(machine, "libseccomp").state == "bad"
    assert look(machine, "seccomp user notification").state == "bad"
    assert "profile" in look(machine, "seccomp user notification").advice


def test_memfd_secret_refused_is_unknown(tree: Tree) -> None:
    check = look(tree.machine(memfd_secret=errno.EPERM), "memfd_secret")
    assert (check.state, check.value) == ("unknown", "Operation not permitted")


def test_other_architecture_is_bad(tree: Tree) -> None:
    assert look(tree.machine(architecture="s390x"), "kernel").state == "bad"


def test_ptrace_scope_2_needs_the_right_to_trace(tree: Tree) -> None:
    machine = tree.machine({"proc/sys/kernel/yama/ptrace_scope": "2\n"}, may_trace=False)
    assert look(machine, "Yama ptrace_scope").state == "bad"


def test_packed_config_counts_before_the_one_in_boot(tree: Tree) -> None:
    machine = tree.machine({"proc/cmdline": "quiet\n"})
    (tree.root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_INIT_ON_FREE_DEFAULT_ON=y\n"))
    assert look(machine, "init_on_free").state == "good"


def test_broken_packed_config_is_unknown_with_the_reason(tree: Tree) -> None:
    machine = tree.machine({"proc/cmdline": "quiet\n"})
    (tree.root / "proc/config.gz").write_bytes(b"not gzip")
    check = look(machine, "init_on_free")
    assert check.state == "unknown"
    assert "/proc/config.gz" in check.advice


@pytest.mark.parametrize("path", [path for path in SOUND if path != CONFIG])
def test_a_reading_that_fails_is_unknown_with_the_reason(tree: Tree, path: str) -> None:
    machine = tree.machine({path: None})
    (tree.root / path).mkdir(parents=True)  # root may read every file, but nobody a directory
    checks = run_checks(machine)
    unknown = [check for check in checks if check.state == "unknown"]
    assert unknown
    assert len(checks) == len(CHECKS)
    assert all(check.value == "Is a directory" and path in check.advice for check in unknown)


def test_an_empty_machine_gives_no_traceback(tmp_path: Path) -> None:
    status = inspect(Machine(root=tmp_path))
    assert status.kernel == "unknown"
    assert status.processes == []
    assert status.checks[-1].name == "locked memory"
    assert status.checks[-1].state == "unknown"


def test_processes_with_locked_memory_and_what_covers_them(tree: Tree) -> None:
    machine = tree.machine()
    tree.process(10, "mlockwipe-super")
    tree.process(11, "vault", locked=640, tracer=10, command="vault\0server\0")
    tree.process(12, "mlockwipe-keep", locked=640, tracer=10)
    tree.process(20, "gdb")
    tree.process(21, "gpg", locked=64, tracer=20, command="gpg\0-d\0a b\0")
    tree.process(22, "wallet", locked=8, tracer=999)
    tree.process(30, "bash", command="bash\0")
    tree.process(2, "kthreadd", locked=None)
    (tree.root / "proc/40").mkdir()  # ended between the listing and the reading
    found = {process.pid: process for process in locked_processes(machine, None, with_arguments=True)}
    assert {pid: process.covered_by for pid, process in found.items()} == {
        11: "supervisor",
        21: None,
        22: None,
    }
    assert found[11].locked_kib == 640
    assert found[11].user == "root"
    assert found[21].command == "gpg -d 'a b'"
    assert {process.pid: process.command for process in locked_processes(machine, None)}[21] == "gpg"


def test_a_daemon_whose_copies_count_as_not_locked_is_there_if_a_supervisor_has_it(tree: Tree) -> None:
    tree.process(1, "systemd")
    tree.process(10, "mlockwipe-super")
    tree.process(11, "gpg-agent", tracer=10)
    tree.process(12, "mlockwipe-keep", tracer=10)
    tree.process(13, "bash", tracer=14)
    tree.process(14, "strace")
    machine = tree.machine()
    assert [(one.pid, one.locked_kib, one.covered_by) for one in locked_processes(machine, None)] == [
        (11, 0, "supervisor")
    ]


def test_a_program_that_takes_the_name_of_one_of_ours_is_neither_hidden_nor_covered_by_that(tree: Tree) -> None:
    tree.process(10, "mlockwipe-super")
    tree.process(11, "mlockwipe-keep", locked=64)
    parents_and_masks = {12: (1, "fffffffffffbfeff"), 13: (10, "fffffffe7ffbfeff"), 14: (10, "fffffffffffbfeff")}
    for pid, (parent, mask) in parents_and_masks.items():  # of the second: all that the C library blocks
        tree.process(pid, "mlockwipe-keep", locked=64, tracer=10)
        with (tree.root / f"proc/{pid}/status").open("a") as status:
            status.write(f"PPid:\t{parent}\nSigBlk:\t{mask}\n")
    tree.write("proc/20/status", "Name:\tmlockwipe-super\nTracerPid:\t0\nUid:\t9\t9\t9\t9\n")
    tree.process(21, "vault", locked=64, tracer=20)
    assert {one.pid: one.covered_by for one in locked_processes(tree.machine(), None)} == {
        11: None,
        12: "supervisor",
        13: "supervisor",
        21: None,
    }


def test_without_proc_nothing_is_said_of_the_kernel(tmp_path: Path) -> None:
    status = inspect(Machine(root=tmp_path))
    checks = {check.name: check for check in status.checks}
    for name in ("seccomp user notification", "Yama ptrace_scope", "core dumps"):
        assert checks[name].state == "unknown"
        assert checks[name].advice.endswith(": mount -t proc proc /proc.")
    output = io.StringIO()
    print_status(status, Console(file=output, width=200))
    assert "No process" not in output.getvalue()


def test_the_kernel_covers_what_the_supervisor_does_not(tree: Tree) -> None:
    machine = tree.machine()
    tree.process(21, "gpg", locked=64)
    assert [process.covered_by for process in inspect(machine).processes] == ["init_mlocked_on_free"]


def test_init_on_free_covers_too(tree: Tree) -> None:
    machine = tree.machine({OPTION: None})
    tree.process(21, "gpg", locked=64)
    assert [process.covered_by for process in inspect(machine).processes] == ["init_on_free"]


def test_a_process_cannot_write_to_the_terminal_by_its_name(tree: Tree) -> None:
    machine = tree.machine({OPTION: None, "proc/cmdline": "quiet\n"})
    name = "\x1b]0;title\x07[red]\u202e"
    tree.process(21, name, locked=64, command=name)
    (tree.root / "proc/21/exe").symlink_to("/tmp/" + name)
    tree.process(22, "without an exe that may be read" + name, locked=64)
    output = io.StringIO()
    for with_arguments in (False, True):
        status = inspect(machine, with_arguments=with_arguments)
        print_status(status, Console(file=output, width=200, force_terminal=False))
    text = output.getvalue()
    assert text.replace("\n", "").isprintable()
    assert text.count("[red]") == 4
    assert "mlockwipe run -- COMMAND" in text


def test_table_without_processes_says_so(tree: Tree) -> None:
    output = io.StringIO()
    print_status(inspect(tree.machine()), Console(file=output, width=200))
    assert "No process" in output.getvalue()


def test_json_has_the_schema(tree: Tree) -> None:
    machine = tree.machine()
    tree.process(21, "gpg", locked=64, command="gpg\0")
    document = json.loads(json.dumps(to_json(inspect(machine))))
    assert document["schema"] == 1
    assert document["kernel"] == "6.12.3-amd64"
    assert set(document["checks"][0]) == {"name", "state", "value", "advice"}
    assert document["processes"] == [
        {
            "pid": 21,
            "user": "root",
            "command": "gpg",
            "locked_kib": 64,
            "covered_by": "init_mlocked_on_free",
        }
    ]


def test_this_machine_answers() -> None:
    status = inspect()
    assert len(status.checks) >= len(CHECKS)
    assert status.checks[0].name == "kernel"
    assert try_memfd_secret() >= 0
    assert try_seccomp_notification() >= 0
    version = try_libseccomp()
    assert version is None or version.count(".") == 2


# Parsers


@given(st.text())
def test_parsers_take_any_text(text: str) -> None:
    parse_boot_line(text)
    parse_bool(text)
    parse_config(text)
    parse_swaps(text)
    parse_limits(text)
    parse_release(text)
    parse_fields(text)
    unescape(text)


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"=-\\'), min_size=1)


@given(st.dictionaries(WORD, st.none() | st.text(st.sampled_from("abc 12-_=.,"), max_size=8)))
def test_boot_line_comes_back(parameters: dict[str, str | None]) -> None:
    line = " ".join(name if value is None else f'{name}="{value}"' for name, value in parameters.items())
    assert parse_boot_line(line) == parameters


def test_boot_line_takes_dash_for_underscore_and_the_last_of_a_name() -> None:
    assert parse_boot_line("init-on-free=0 init_on_free=1") == {"init_on_free": "1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("Y", True), ("on", True), ("yes", True), ("0", False), ("n", False), ("off", False)]
    + [(text, None) for text in ("", "o", "2", "-1", None)],
)
def test_kernel_boolean(text: str | None, value: bool | None) -> None:
    assert parse_bool(text) is value


@given(
    st.lists(
        st.builds(
            Swap,
            path=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Z"]), min_size=1).map("/".__add__),
            kind=st.sampled_from(["partition", "file"]),
            kib=st.integers(0, 2**40),
        )
    )
)
def test_swaps_come_back(swaps: list[Swap]) -> None:
    def escape(path: str) -> str:
        return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in path)

    lines = "".join(f"{escape(swap.path)}\t{swap.kind}\t{swap.kib}\t0\t-2\n" for swap in swaps)
    assert parse_swaps(SWAPS + lines) == swaps


@given(
    st.dictionaries(
        st.sampled_from(["Max core file size", "Max locked memory", "Max realtime priority"]),
        st.builds(Limit, *[st.none() | st.integers(0, 2**64 - 1)] * 2),
    )
)
def test_limits_come_back(limits: dict[str, Limit]) -> None:
    def show(value: int | None) -> str:
        return "unlimited" if value is None else str(value)

    lines = "".join(f"{name:<26}{show(x.soft):<21}{show(x.hard):<21}bytes\n" for name, x in limits.items())
    assert parse_limits("Limit\n" + lines) == limits


def test_config_tells_not_set_from_not_known() -> None:
    config = parse_config('CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="lzo"\n# a comment\n')
    assert config == {"A": "y", "B": "n", "C": "lzo"}


@pytest.mark.parametrize(
    ("release", "told"), [("6.12.3-amd64", True), ("6.12.3-arch1", False), ("6.13.0-amd64", False)]
)
def test_the_module_is_advised_where_there_is_one(tree: Tree, release: str, told: bool) -> None:
    changes = {OPTION: None, "proc/sys/kernel/osrelease": f"{release}\n", f"boot/config-{release}": SOUND[CONFIG]}
    advice = look(tree.machine(changes), "init_mlocked_on_free").advice
    assert ("mlockwipe kernel module install" in advice) is told

# SPDX-License-Identifier: MIT
"""Counts of instructions: read, compared, printed, and not believed when they can't be right."""

import io
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mlockwipe.kernel.module import fetched_headers
from mlockwipe.kernel.packages import cache
from mlockwipe_lab.bench.guest import lab_bench
from mlockwipe_lab.bench.guest import measure as measuring
from mlockwipe_lab.bench.guest.cost_table import Run, as_document, cost_table
from mlockwipe_lab.bench.guest.measure import compile_init, measure, parse
from mlockwipe_lab.bench.guest.packed import packed
from mlockwipe_lab.bench.guest.work import COMPARISONS, LOOP, WORKS, Configuration, Sample, mistake, together
from mlockwipe_lab.vm import alone
from mlockwipe_lab.vm.failures import BOOTS_AGAIN, GuestFailed
from mlockwipe_lab.vm.kernels import Kernel, debian_release, kernel
from tests.support.running import MLOCKWIPE

_, OFF, ON = COMPARISONS["boot-option"].configurations[:3]
CONFIGURATIONS = [
    pytest.param(configuration, id=f"{comparison.name}: {configuration.name}")
    for comparison in COMPARISONS.values()
    for configuration in comparison.configurations
]
KERNEL = Kernel("patched-6.12", "6.12.1", Path("bzImage"), None)
CONSOLE = "mem auto-init: stack:all(zero), heap alloc:{}, heap free:{}\n"


def console(configuration: Configuration) -> str:
    return CONSOLE.format(
        *("on" if on else "off" for on in (configuration.init_on_alloc, configuration.init_on_free))
    )


def samples(configuration: Configuration, cost: int = 1000) -> dict[str, Sample]:
    """Such as a kernel gives that takes `cost` instructions a page, and twice that where it zeroes."""

    def wiped(expected: int) -> int:
        return {None: -1, 0: 0, 1: expected}[configuration.option]

    def sample(instructions: int, expected: int | None) -> Sample:
        return Sample(
            [instructions, instructions + 1, instructions + 2], [wiped(7 if expected is None else expected)] * 3
        )

    zeroes = configuration.init_on_free
    return {
        LOOP: sample(2_000_000, 0),
        "rep-stosq": sample(520, 0),
        **{
            work.name: sample(
                (work.pages or 1) * cost * (2 if zeroes or (configuration.option and work.wiped) else 1), work.wiped
            )
            for work in WORKS
        },
    }


# What the guest says


def said(*lines: object) -> str:
    return "".join(f"{json.dumps(line)}\n[    1.2] random: crng init done\n" for line in lines)


LOOPED = {"workload": "loop", "took": [3, 1, 2], "system": [], "wiped": [-1, -1, -1]}


def test_counts_are_found_among_what_the_kernel_says() -> None:
    found = parse("[    0.0] Linux version 6.12\n" + said(LOOPED, {"end": True}))
    assert found == {"loop": Sample((3, 1, 2), (-1, -1, -1))}
    assert found["loop"].median == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "process 1 did not get to its end"),
        (said(LOOPED), "process 1 did not get to its end"),
        (said(LOOPED, {"failed": "mlock: Cannot allocate memory"}, {"end": True}), "process 1 failed: mlock: Cannot"),
        (said(LOOPED, {"workload": "loop", "took": [1]}, {"end": True}), r"process 1 said '\{\"workload"),
        (said(LOOPED) + '{"workload": [ 1.3] BUG: oops}\n', r"process 1 said '\{\"workload\": \[ 1\.3\] BUG"),
    ],
)
def test_a_guest_that_does_not_get_to_its_end_has_failed(text: str, why: str) -> None:
    with pytest.raises(GuestFailed, match=why) as failed:
        parse(text)
    assert failed.value.console == text


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_right_counts_are_believed(configuration: Configuration) -> None:
    right = samples(configuration)
    assert mistake(right, configuration, console(configuration)) is None
    del right["unmap-mthp"], right["unmap-mthp-1g"]  # as on Linux 6.1
    assert mistake(right, configuration, console(configuration)) is None


@pytest.mark.parametrize("name", ["gpg", "memcached"])
def test_a_program_that_locks_memory_of_which_nothing_is_zeroed_is_a_mistake(name: str) -> None:
    wrong = samples(ON)
    wrong[name] = replace(wrong[name], wiped=[7, 0, 7])
    assert "the kernel has zeroed none of its pages" in (mistake(wrong, ON, console(ON)) or "")
    wrong[name] = replace(wrong[name], wiped=[7, 8, 9])
    assert mistake(wrong, ON, console(ON)) is None
    assert "pages, not 0" in (mistake({**samples(OFF), name: wrong[name]}, OFF, console(OFF)) or "")


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", [work.name for work in WORKS if work.wiped is not None])
def test_a_page_more_or_less_that_was_zeroed_is_a_mistake(configuration: Configuration, name: str) -> None:
    wrong = samples(configuration)
    wrong[name] = replace(wrong[name], wiped=[*wrong[name].wiped[:2], wrong[name].wiped[2] + 1])
    assert "pages, not " in (mistake(wrong, configuration, console(configuration)) or "")


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_counts_of_another_configuration_are_a_mistake(configuration: Configuration) -> None:
    for other in COMPARISONS["boot-option"].configurations:
        same = replace(other, name="", kernel="") == replace(configuration, name="", kernel="")
        assert (mistake(samples(other), configuration, console(other)) is None) == same


def test_a_clock_that_does_not_count_instructions_is_a_mistake() -> None:
    wrong = samples(ON)
    wrong[LOOP] = Sample([2_002_001], [0])
    assert mistake(wrong, ON, console(ON)) == "its clock does not count instructions: 2000000 took 2002001"


def test_work_that_was_not_done_is_a_mistake() -> None:
    wrong = samples(ON)
    del wrong["fork-exec"], wrong["exit-locked"]
    assert mistake(wrong, ON, console(ON)) == "it has not measured exit-locked, fork-exec"


# Comparing


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        ([10] * 9, [10] * 9, False),
        ([10] * 9, [11] * 9, True),
        ([10] * 8 + [900], [10] * 9, False),  # one time out of nine says nothing
        ([1, 2, 3, 4, 5], [2, 3, 4, 5, 6], False),
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 9], True),
    ],
)
def test_what_overlaps_in_its_middle_half_does_not_differ(
    one: Sequence[int], other: Sequence[int], differs: bool
) -> None:
    a, b = Sample(one, []), Sample(other, [])
    assert a.differs(b) is b.differs(a) is differs


def test_boots_are_taken_together() -> None:
    one, other = ({"loop": Sample((first, 2), (0, 1), (5,)), "fork": Sample((3,), (9,))} for first in (1, 7))
    assert together([one, other]) == {
        "loop": Sample((1, 2, 7, 2), (0, 1, 0, 1), (5, 5)),
        "fork": Sample((3, 3), (9, 9)),
    }


def runs(carrier: str = "boot-option", **costs: int) -> list[Run]:
    made = COMPARISONS[carrier]
    return [Run(made, "6.12", one, KERNEL, samples(one, costs.get(one.name, 1000))) for one in made.configurations]


def printed(made: Sequence[Run]) -> str:
    out = io.StringIO()
    Console(file=out, width=170).print(cost_table(made))
    return out.getvalue()


def row(text: str, title: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if title in line)
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_the_table_has_what_a_page_costs_more() -> None:
    text = printed(runs(on=1100))
    assert row(text, "munmap of 64 MiB, locked  ") == [
        *("16,384,001", "=", "+120.00 %", "+100.00 %", "="),
        *("+10.00 %", "1200", "1000"),
    ]
    assert row(text, "munmap of 64 MiB, never locked")[1:] == [
        *("=", "+10.00 %", "+100.00 %", "="),
        *("-45.00 %", "100", "1000"),
    ]
    assert row(text, "100 times fork, exec and exit")[6:] == ["", ""]


@pytest.mark.parametrize(("carrier", "without"), [("boot-option", "unpatched"), ("module", "stock")])
def test_the_table_says_what_is_compared(carrier: str, without: str) -> None:
    text = printed(runs(carrier))
    assert f"What init_mlocked_on_free as a {carrier.replace('-', ' ')} costs on Linux 6.12.1, in instr" in text
    names = [cell.strip() for cell in text.splitlines()[3].strip("┃").split("┃")]
    assert names[:6] == ["what", without, "off", "on", "init_on_free", "init_on_alloc"]
    assert names[6:] == ["init_on_free", "on", "init_on_free"]


def test_what_can_not_be_distinguished_is_not_given_a_ratio() -> None:
    text = printed(runs(off=1010))
    assert row(text, "munmap of 64 MiB, never locked")[1] == "+1.00 %"
    assert row(printed(runs()), "munmap of 64 MiB, never locked")[1:7] == [
        "=",
        "=",
        "+100.00 %",
        "=",
        "-50.00 %",
        "=",
    ]


def test_the_table_says_what_instructions_do_not_show() -> None:
    text = " ".join(printed(runs()).split())
    assert "no cache, no DRAM, no other CPU" in text
    assert "counts as 521" in text


def test_the_document_has_every_count() -> None:
    document = json.loads(json.dumps(as_document(runs(), {"qemu": "QEMU 7"})))
    assert (document["schema"], document["machine"]) == (1, {"qemu": "QEMU 7"})
    assert [run["configuration"] for run in document["runs"]] == [
        *("unpatched", "off", "on", "init_on_free", "init_on_alloc", "off, init_on_free")
    ]
    on = document["runs"][2]
    assert (on["carrier"], on["series"], on["kernel"], on["patched"]) == ("boot-option", "6.12", "6.12.1", True)
    assert on["append"] == ["init_on_alloc=0", "init_on_free=0", "init_mlocked_on_free=1"]
    work = {work["name"]: work for work in on["work"]}
    assert work["unmap-4k-locked"] == {
        "name": "unmap-4k-locked",
        "pages": 64,
        "median": 128001,
        "instructions": [128000, 128001, 128002],
        "wiped": [64, 64, 64],
    }


def test_the_document_says_what_the_module_was_loaded_with() -> None:
    document = json.loads(json.dumps(as_document(runs("module"), {})))
    stock, off, on, init_on_free, init_on_alloc = document["runs"]
    assert {(run["carrier"], run["patched"]) for run in document["runs"]} == {("module", False)}
    assert stock["append"] == ["init_on_alloc=0", "init_on_free=0"]
    assert off["append"] == [*stock["append"], "--", "enabled=0"]
    assert on["append"] == [*stock["append"], "--", "enabled=1"]
    assert init_on_free["append"] == ["init_on_alloc=0", "init_on_free=1"]
    assert init_on_alloc["append"] == ["init_on_alloc=1", "init_on_free=0"]


# What is refused, and machines that fail


def bench(path: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [MLOCKWIPE, "lab", "bench", *map(str, words)],
        env={"PATH": str(path), "HOME": str(path)},
        capture_output=True,
        text=True,
    )


def test_without_qemu_or_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    done = bench(tmp_path)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == ("mlockwipe: the lab needs qemu-system-x86: run `make lab-setup`, or apt-get install it\n")
    script(tmp_path / "qemu-system-x86_64", "exit 1")
    done = bench(tmp_path)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "mlockwipe: what measures is a C program, and there is no gcc: apt-get install gcc libc6-dev\n"
    )
    script(tmp_path / "gcc", "echo 'ld: cannot find -lc: No such file' >&2; exit 1")
    done = bench(tmp_path)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "mlockwipe: workloads.c can't be compiled: ld: cannot find -lc: No such file\n"


def test_a_file_that_can_not_be_written_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    script(tmp_path / "qemu-system-x86_64", "exit 1")
    script(tmp_path / "gcc", "exit 0")
    done = bench(tmp_path, "--json", tmp_path / "none" / "costs.json")
    assert done.returncode == 125
    assert done.stderr.startswith("mlockwipe: ") and str(tmp_path / "none" / "costs.json") in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("--series", "5.4"), ("--carrier", "supervisor")])
def test_what_is_not_there_is_a_mistake_of_usage(option: str, value: str, tmp_path: Path) -> None:
    done = bench(tmp_path, option, value)
    assert done.returncode == 2
    assert f"invalid choice: '{value}'" in done.stderr


def test_two_reports_in_one_file_are_a_mistake_of_usage(tmp_path: Path) -> None:
    done = bench(tmp_path, "--json", "costs", "--markdown", "costs")
    assert done.returncode == 2
    assert "--json and --markdown name the same file" in done.stderr


def test_what_the_others_have_counted_is_not_lost_with_a_guest_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the boot option no guest comes to its end; the module's, booted after them, do."""

    def taken(what: str, jobs: Sequence[tuple[object, ...]], boots: int) -> list[list[dict[str, Sample]]]:
        if what.startswith("boot-option"):
            raise GuestFailed("on: process 1 did not get to its end", "Kernel panic")
        configurations = [job[3] for job in jobs]
        return [[samples(one)] for one in configurations if isinstance(one, Configuration)]

    for name, stand_in in {
        "_taken": taken,
        "compile_init": lambda place, timing: place / "init",
        "packed": lambda headers: {},
        "fetched_headers": Path,
        "debian_release": str,
        "kernel": lambda name, on_line: replace(KERNEL, name=name),
    }.items():
        monkeypatch.setattr(lab_bench, name, stand_in)
    script(tmp_path / "qemu-system-x86_64", "echo QEMU 7")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    files = str(tmp_path / "costs.json"), str(tmp_path / "costs.md")
    status = lab_bench.lab_bench(
        ["boot-option", "module"], ["6.12"], rounds=None, json_file=files[0], markdown_file=files[1]
    )
    assert status == 1
    assert "boot-option, Linux 6.12: on: process 1 did not get to its end" in capsys.readouterr().out
    assert [run["carrier"] for run in json.loads(Path(files[0]).read_text())["runs"]] == ["module"] * 5
    assert Path(files[1]).read_text().startswith("What init_mlocked_on_free as a module costs")


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def machine(
    text: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float = 60,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Sample]:
    """What is measured when `text` is QEMU. $console: the file of its serial line."""
    find = 'for word; do case "$word" in file:*) console="${word#file:}";; esac; done\n'
    script(place / "qemu-system-x86_64", find + text)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    (place / "init").touch()
    return measure(replace(KERNEL, image=place / "bzImage"), place / "init", {}, ON, advance, timeout=timeout)


def test_a_machine_that_ends_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"workload": name, "took": sample.took, "system": [], "wiped": sample.wiped}
        for name, sample in samples(ON).items()
    ]
    (tmp_path / "said").write_text(console(ON) + said(*lines, {"end": True}))
    found = machine(f'cp {tmp_path}/said "$console"', tmp_path, monkeypatch)
    assert found["unmap-4k-locked"].median == 128001
    with pytest.raises(GuestFailed, match="does not say 'heap alloc:off, heap free:off'"):
        machine(f'sed s/free:off/free:on/ {tmp_path}/said >"$console"', tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo no such kernel >&2; exit 1", "no such kernel"),
        ("exit 3", "QEMU ended with 3"),
        ("echo panic >$console", "process 1 did not get to its end"),
    ],
)
def test_why_a_machine_failed_is_said(text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GuestFailed, match=why):
        machine(text, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("complaint", "boots"),
    [("Oops: int3: 0000 [#1] SMP", BOOTS_AGAIN + 1), ("Oops: 0002 [#1] SMP", 1), ("", BOOTS_AGAIN + 1)],
)
def test_a_machine_that_dies_of_its_emulation_is_booted_again_and_no_other(
    complaint: str, boots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GuestFailed, match="did not get to its end"):
        machine(f'echo >>{tmp_path}/boots; echo "[    1.2] {complaint}" >"$console"', tmp_path, monkeypatch)
    assert len((tmp_path / "boots").read_text()) == boots


def test_a_machine_that_falls_silent_before_it_has_a_process_1_is_booted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "BOOT_SILENCE", 0.3)
    text = f'echo >>{tmp_path}/boots; echo "[    1.2] IP idents hash table entries" >"$console"; exec sleep 60'
    with pytest.raises(GuestFailed, match="the guest hangs: its console is silent for 0 s"):
        machine(text, tmp_path, monkeypatch)
    assert len((tmp_path / "boots").read_text()) == BOOTS_AGAIN + 1


def test_what_a_machine_had_done_when_it_died_of_its_emulation_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"workload": name, "took": sample.took, "system": [], "wiped": sample.wiped}
        for name, sample in samples(ON).items()
    ]
    (tmp_path / "dead").write_text(said(*lines[:3]) + "Oops: int3: 0000 [#1] SMP\n")
    (tmp_path / "well").write_text(console(ON) + said(*lines, {"end": True}))
    told: list[None] = []
    machine(
        f'cat {tmp_path}/dead >"$console"; sleep 1; cp {tmp_path}/well {tmp_path}/dead',
        tmp_path,
        monkeypatch,
        advance=lambda: told.append(None),
    )
    assert len(told) == len(lines) + 1  # and the end


def test_a_machine_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GuestFailed, match="the guest does not end in 1 s"):
        machine(f"echo $$ >{tmp_path}/pid; exec sleep 60", tmp_path, monkeypatch, timeout=1)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# On a real machine, each thing once: seconds


needs_headers = [
    pytest.mark.needs_program("depmod", "kmod"),
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize("carrier", ["boot-option", pytest.param("module", marks=needs_headers)])
@pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86")
@pytest.mark.needs_program("gcc", "gcc")
@pytest.mark.needs_program("gcc-12", "gcc-12")
@pytest.mark.needs_program("make", "make")
@pytest.mark.needs_program("gpg", "gnupg")
@pytest.mark.needs_program("hackbench", "rt-tests")
@pytest.mark.needs_program("memcached", "memcached")
def test_a_real_machine_counts_and_zeroes_what_it_must(
    carrier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_FLAGS", (*measuring._FLAGS, "-DTIMES=1"))
    _, off, on = COMPARISONS[carrier].configurations[:3]
    booted = built() if carrier == "boot-option" else kernel("debian-6.12")
    programs = packed(fetched_headers(debian_release("6.12")))
    counted = measure(booted, compile_init(tmp_path), programs, on)
    more = counted["unmap-locked"].median - counted["unmap-unlocked"].median
    assert more > 16384 * 512  # the clearing itself
    assert mistake(counted, off, console(off)) == (
        "munmap of 64 MiB, locked: the kernel has zeroed [16384] pages, not 0"
    )


def built() -> Kernel:
    """One with the boot option, if it was built before: that takes long."""
    image = cache() / "build-6.12-lab" / "arch" / "x86" / "boot" / "bzImage"
    if not image.exists():
        pytest.skip("no kernel is built: mlockwipe kernel build --series 6.12")
    return kernel("patched-6.12")  # what is there may be a wrong design's, of another test

# SPDX-License-Identifier: MIT
"""Is the series one that a kernel developer would take?

`git am` takes it, checkpatch.pl --strict and sparse have nothing to say, W=1 neither, every patch of it builds (a
whole vmlinux), and it compiles for configurations that the lab does not boot:
`python -m mlockwipe_lab.kernel_checks.quality`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlockwipe.kernel.build import check_tools, debian_source
from mlockwipe.kernel.packages import cache
from mlockwipe.kernel.series import SERIES, home, patches, touched, without
from mlockwipe_lab.vm.kernels import kernel

NEW = "mm/init_mlocked.o"
TOUCHED = ("mm/", "kernel/fork.o", "fs/proc/task_mmu.o")
# What is asked for beside the lab's options, and what is made of it.
CONFIGURATIONS: dict[str, tuple[dict[str, str], str]] = {
    "without the option": ({"INIT_MLOCKED_ON_FREE": "n"}, "x86_64"),
    "on by default": ({"INIT_MLOCKED_ON_FREE_DEFAULT_ON": "y"}, "x86_64"),
    "without huge pages, KSM, swap, migration": (
        dict.fromkeys(("TRANSPARENT_HUGEPAGE", "KSM", "SWAP", "MIGRATION", "COMPACTION", "SECRETMEM"), "n"),
        "x86_64",
    ),
    "one processor": ({"SMP": "n"}, "x86_64"),
    "NUMA": ({"NUMA": "y", "NUMA_BALANCING": "y"}, "x86_64"),
    "32-bit": ({"64BIT": "n", "X86_X32_ABI": "n", "IA32_EMULATION": "n"}, "i386"),
}
REAL_TIME = ({"PREEMPT_RT": "y"}, "x86_64")  # of 6.12: before it is no part of Linux


def original(series: str) -> Path:
    """Debian's sources as they come, in a tree of their own in the cache."""
    tree = cache() / f"quality-{series}-tree"
    shutil.rmtree(tree, ignore_errors=True)
    without(patches(series), debian_source(series), tree)
    return tree


def git(place: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        **{f"GIT_{who}_{what}": "quality@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    ran = subprocess.run(["git", *arguments], cwd=place, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"git {arguments[0]}: {ran.stderr or ran.stdout}")
    return ran.stdout


def am(series: str, tree: Path, place: Path) -> None:
    """Take the series with `git am` in a repository of the files that it touches. Raises RuntimeError."""
    for file in touched(patches(series))[0]:
        first = tree / ".before-init_mlocked" / file
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first if first.exists() else tree / file, place / file)
    git(place, "init", "--quiet")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "Debian's")
    git(place, "am", "--quiet", *map(str, patches(series)))
    subjects = git(place, "log", "--format=%s").splitlines()
    if len(subjects) != len(patches(series)) + 1:
        raise RuntimeError(f"git am made {subjects}")


def checkpatch(series: str, tree: Path) -> list[str]:
    """What scripts/checkpatch.pl --strict says of each patch, with the patch's name before it."""
    said = []
    for patch in patches(series):
        argv = ["perl", "scripts/checkpatch.pl", "--strict", "--terse", "--no-summary", str(patch)]
        ran = subprocess.run(argv, cwd=tree, capture_output=True, text=True)
        said += [
            f"{patch.name}: {line.partition(': ')[2] or line}" for line in (ran.stdout + ran.stderr).splitlines()
        ]
    return said


def make(tree: Path, place: Path, *targets: str, arch: str = "x86_64") -> list[str]:
    """The warnings and errors of a build. What a kernel prints of itself is none."""
    argv = ["make", f"-j{os.cpu_count()}", "--silent", f"ARCH={arch}", "-C", str(tree), f"O={place}", *targets]
    ran = subprocess.run(argv, capture_output=True, text=True)
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if re.search(r"warning|error|\*\*\*", line)]
    return lines or ([f"make ended with {ran.returncode}"] if ran.returncode else [])


def configure(series: str, tree: Path, place: Path, options: dict[str, str], arch: str = "x86_64") -> list[str]:
    place.mkdir(parents=True, exist_ok=True)
    lines = (home() / "configs" / "lab.config").read_text().splitlines()
    kept = [line for line in lines if re.sub(r"^CONFIG_|=.*$", "", line) not in options]
    asked = [
        f"CONFIG_{name}={value}" if value != "n" else f"# CONFIG_{name} is not set" for name, value in options.items()
    ]
    (place / ".asked").write_text("\n".join([*kept, *asked]) + "\n")
    said = make(tree, place, f"KCONFIG_ALLCONFIG={place}/.asked", "allnoconfig", arch=arch)
    made = (place / ".config").read_text().splitlines()
    return said + [f"{line} is not taken" for line in asked if line.endswith("=y") and line not in made]


def as_debian(series: str, tree: Path, place: Path) -> list[str]:
    """What is said when what the series touches is compiled with all that Debian's own kernel has."""
    place.mkdir()
    (config,) = kernel(f"debian-{series}").image.parent.glob("config-*")
    (place / ".config").write_text(config.read_text() + "CONFIG_INIT_MLOCKED_ON_FREE=y\n")
    said = make(tree, place, "olddefconfig") + make(tree, place, *TOUCHED)
    return said if (place / NEW).exists() else [*said, f"{NEW} was not compiled"]


def judged(series: str, *, quick: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Each question with what speaks against the series. `quick`: no vmlinux is built, after none of the patches."""
    tree, place = original(series), cache() / f"quality-{series}"
    shutil.rmtree(place, ignore_errors=True)
    (place / "am").mkdir(parents=True)
    try:
        am(series, tree, place / "am")
        yield "git am", []
    except RuntimeError as error:
        yield "git am", [str(error)]
        return
    yield "checkpatch.pl --strict", checkpatch(series, tree)

    commits = git(place / "am", "log", "--reverse", "--format=%H %s").splitlines()
    build = place / "build"
    for number, commit in enumerate(commits):
        name, _, subject = commit.partition(" ")
        files = git(place / "am", "show", "--format=", "--name-only", name).splitlines() if number else []
        git(place / "am", "checkout", "--quiet", name)
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).unlink(missing_ok=True)  # not written into: it is the other tree's file too
            shutil.copy(place / "am" / file, tree / file)
        said = configure(series, tree, build, {"INIT_MLOCKED_ON_FREE": "y"}) if number == 1 else []
        if number and not quick:
            yield f"builds with {number}: {subject}", said + make(tree, build, "vmlinux")

    (build / NEW).unlink(missing_ok=True)
    yield "W=1 and sparse", make(tree, build, "W=1", "C=1", "CHECK=sparse", NEW)
    several = {**CONFIGURATIONS, **({"real time": REAL_TIME} if series == "6.12" else {})}
    yield "compiles as Debian configures it", as_debian(series, tree, place / "debian")
    for name, (options, arch) in several.items():
        other = place / re.sub(r"\W+", "-", name)
        said = configure(series, tree, other, options, arch)
        yield f"compiles {name}", said + make(tree, other, *TOUCHED, arch=arch)
        if arch == "i386" and (other / NEW).exists():
            yield "32-bit has no option", [f"{NEW} was compiled"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mlockwipe_lab.kernel_checks.quality", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--series", choices=SERIES, default="6.12", help="(default: 6.12)")
    parser.add_argument("--quick", action="store_true", help="without a vmlinux after each patch")
    options = parser.parse_args(arguments)
    check_tools()
    if missing := [tool for tool in ("git", "perl", "sparse") if shutil.which(tool) is None]:
        print(f"it needs {', '.join(missing)}: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 125
    good = True
    for question, against in judged(options.series, quick=options.quick):
        good = good and not against
        print(f"{question}: {'good' if not against else 'NOT GOOD'}", *against, sep="\n    ", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: MIT
"""Real programs for a guest that has no other file system than what it is booted with, and all that they read."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlockwipe
from mlockwipe.errors import Refused
from mlockwipe.kernel.module import make, sources
from mlockwipe_lab.bench.programs import PROGRAMS as SCRIPTS
from mlockwipe_lab.bench.programs.gpg_key import make_gpg_key
from mlockwipe_lab.vm.alone import Files

_GPG_HOME = "root/.gnupg"
_COMPILED = "hooks.i"
_AS_LINUX = ("-O2", "-std=gnu11", "-w", "-fno-pie", "-mcmodel=kernel", "-mno-red-zone")
_CONFIGURATIONS = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")


@dataclass(frozen=True)
class Program:
    """`name`: of its work. `argv`: what process 1 executes. `executables`: what that executes in turn, by name or
    path. `package`: of Debian, that has them. `more`: its other files, from a place to make them in and the headers
    of a Linux.
    """

    name: str
    argv: tuple[str, ...]
    executables: tuple[str, ...]
    package: str
    more: Callable[[Path, Path], Files] = lambda place, headers: {}


def _script(name: str) -> Files:
    return {name: (SCRIPTS / name).read_bytes()}


def _gpg(place: Path, headers: Path) -> Files:
    """Its script and a home with a key."""
    home = place / "gpg"  # short: the agent's sockets lie in it
    home.mkdir(mode=0o700)
    make_gpg_key(str(home))
    kept = [path for path in home.rglob("*") if path.is_file() and not path.name.endswith((".lock", "~"))]
    files = {f"{_GPG_HOME}/{path.relative_to(home)}": path.read_bytes() for path in kept}
    return {**files, **_script("gpg.sh")}


def _python(script: str) -> Files:
    """A script and all that it imports, compiled."""
    tell = (
        "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_path(sys.argv[1], run_name='__main__'); "
        "print(*{f for m in list(sys.modules.values()) if (f := getattr(m, '__file__', None))}, sep='\\n')"
    )
    above = str(Path(mlockwipe.__file__).parents[1])
    ran = subprocess.run(
        [_INTERPRETER, *_ISOLATED, "-c", tell, str(SCRIPTS / script), above], capture_output=True, text=True
    )
    if ran.returncode:
        raise Refused(f"{script} fails on this machine: {ran.stderr.strip().splitlines()[-1]}")
    files = _script(script)
    for path in map(Path, ran.stdout.splitlines()):
        if path.suffix != ".py":
            files.update(_with_libraries([str(path)]))
        elif path != SCRIPTS / script:
            ours = path.is_relative_to(above)  # beside the script, where Python looks first
            files[str(path.relative_to(above if ours else "/").with_suffix(".pyc"))] = _compiled(path)
    return files


_INTERPRETER = os.path.realpath(sys.executable)
_ISOLATED = ("-S", "-E", "-B")  # nothing of this machine's site, and nothing written


def _compiled(source: Path) -> bytes:
    """What Python loads from NAME.pyc without looking for NAME.py."""
    from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined]

    code = compile(source.read_bytes(), str(source), "exec", dont_inherit=True, optimize=0)
    return bytes(_code_to_hash_pyc(code, bytes(8), False))


def _kernel_code(place: Path, headers: Path) -> Files:
    """A file of the module, preprocessed with the headers of a kernel: a hundred thousand lines of Linux."""
    for path in sources():
        shutil.copyfile(path, place / path.name)
    make(headers, place, [_COMPILED])
    return {_COMPILED: (place / _COMPILED).read_bytes()}


PROGRAMS = (
    Program(
        "hackbench",
        ("/usr/bin/hackbench", "-g", "2", "-l", "20"),
        ("hackbench",),
        "rt-tests",
    ),
    Program(
        "compile",
        ("/usr/bin/gcc-12", *_AS_LINUX, "-c", f"/{_COMPILED}"),
        ("gcc-12", "cc1", "as"),
        "gcc-12",
        _kernel_code,
    ),
    Program(
        "gpg",
        ("/bin/sh", "/gpg.sh"),
        ("/bin/sh", "grep", "gpg", "gpg-agent", "gpg-connect-agent"),
        "gnupg",
        _gpg,
    ),
    Program(
        "memcached",
        (_INTERPRETER, *_ISOLATED, "/cache_server.py"),
        (_INTERPRETER, "memcached"),
        "memcached",
        lambda place, headers: _python("cache_server.py"),
    ),
    Program(
        "web-service",
        (_INTERPRETER, *_ISOLATED, "/web_service.py"),
        (_INTERPRETER,),
        "python3",
        lambda place, headers: _python("web_service.py"),
    ),
)


def packed(headers: Path) -> Files:
    """All programs with all that they read, and '/programs', which tells process 1 how to execute them.

    `headers`: of a Linux, to have kernel code to compile. Raises Refused.
    """
    if missing := [one.package for one in PROGRAMS for name in one.executables if _found(name) is None]:
        raise Refused(f"real programs are measured, too: apt-get install {' '.join(dict.fromkeys(missing))}")
    files = {name.lstrip("/"): Path(name).read_bytes() for name in _CONFIGURATIONS if Path(name).exists()}
    lines = []
    for program in PROGRAMS:
        files.update(_with_libraries([str(_found(name)) for name in program.executables]))
        with tempfile.TemporaryDirectory(prefix="mlockwipe-") as place:
            files.update(program.more(Path(place), headers))
        lines.append(" ".join((program.name, *program.argv)))
    return {**files, "programs": "".join(f"{line}\n" for line in lines).encode()}


def _found(name: str) -> str | None:
    if name == "cc1":  # gcc's own, not in the PATH
        gcc = shutil.which("gcc-12")
        ran = gcc and subprocess.run([gcc, "-print-prog-name=cc1"], capture_output=True, text=True).stdout.strip()
        return ran if ran and os.path.isabs(ran) else None
    return shutil.which(name)


def _with_libraries(paths: Iterable[str]) -> Files:
    """ELF files, and all that the dynamic linker maps with them, by the names by which they are looked for."""
    return {name.lstrip("/"): Path(name).read_bytes() for path in paths for name in (path, *_libraries(path))}


def _libraries(path: str) -> Iterator[str]:
    ran = subprocess.run(["ldd", path], capture_output=True, text=True)  # 1: it is static
    yield from re.findall(r"(/\S+) \(0x", ran.stdout)

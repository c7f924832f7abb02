# SPDX-License-Identifier: MIT
"""Programs that people run: such as hold secrets in locked memory, and such as lock nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe.kernel.build import check_tools
from mlockwipe.kernel.packages import cache, version
from mlockwipe_lab.bench.host import limits
from mlockwipe_lab.bench.host.runner import Broken, Runner
from mlockwipe_lab.bench.host.sampling import Figure, over_bare
from mlockwipe_lab.bench.programs import PROGRAMS
from mlockwipe_lab.bench.programs.gpg_key import make_gpg_key

_SEALED = 10
_EXECUTED = 100
_BATCHES = 100
_MESSAGES = 1000
_COMPILED = "kernel/time"  # of Linux: 15 files


def gpg(run: Runner) -> list[Figure]:
    for program in ("gpg", "gpg-agent", "gpgconf"):
        _need(program, "gnupg")
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:  # short: the agent's sockets lie in it
        try:
            make_gpg_key(home)
        except Refused as reason:
            raise Broken(str(reason)) from reason
        rounds = run.both("/bin/sh", _script("gpg_loop.sh"), str(_SEALED), environment={"GNUPGHOME": home})
    return [
        over_bare(rounds, "gpg", "gpg --sign --encrypt with gpg-agent", "seal"),
        over_bare(rounds, "gpg-decrypt", "gpg --decrypt of that, signature verified", "unseal"),
    ]


def python(run: Runner) -> list[Figure]:
    limits.need(256 << 20)
    rounds = run.both(sys.executable, _script("python_loop.py"), str(_EXECUTED), run.program("fork_exec"))
    return [over_bare(rounds, "python", "subprocess.run from Python with all its memory locked", "subprocess")]


def memcached(run: Runner) -> list[Figure]:
    _need("memcached", "memcached")
    limits.need(256 << 20)
    rounds = run.both(sys.executable, _script("memcached_load.py"), str(_BATCHES))
    return [over_bare(rounds, "memcached", "memcached -k, 128 sets and gets", "memcached")]


def web(run: Runner) -> list[Figure]:
    rounds = run.both(sys.executable, _script("web_load.py"), str(_BATCHES))
    return [over_bare(rounds, "web", "web service in Python with a locked key, 4 requests", "web")]


def hackbench(run: Runner) -> list[Figure]:
    """Its times scatter a lot, so there are more rounds."""
    _need("hackbench", "rt-tests")
    rounds = run.both("/bin/sh", _script("hackbench.sh"), str(_MESSAGES), locks=False, rounds=2 * run.rounds)
    return [over_bare(rounds, "hackbench", "hackbench through pipes, nothing locked", "hackbench")]


def kernel_build(run: Runner) -> list[Figure]:
    """It takes seconds, and scatters little: half of the rounds."""
    tree = kernel_tree()
    output = run.programs / "linux"
    configure_kernel(tree, output)
    rounds = run.both(
        *("/bin/sh", _script("kernel_build.sh"), str(tree), str(output), _COMPILED),
        locks=False,
        rounds=run.fewer_rounds,
    )
    return [over_bare(rounds, "kernel-build", f"make -j2 {_COMPILED}/ of Linux, nothing locked", "build")]


def kernel_tree() -> Path:
    """The newest sources that `mlockwipe kernel build` has fetched. Skipped where there are none."""
    try:
        check_tools()
        trees = list(cache().glob("*linux-source-*"))
    except Refused as reason:
        raise limits.Skipped(str(reason)) from reason
    if not trees:
        raise limits.Skipped(f"there are no sources of Linux in {cache()}: 'mlockwipe kernel build' fetches them")
    return max(trees, key=lambda tree: (version(tree.name.removeprefix("unpatched-")), tree.name))


def configure_kernel(tree: Path, output: Path) -> None:
    """The smallest configuration, and what every directory needs of the others."""
    output.mkdir()
    make = ("make", "--silent", "-j2", "-C", str(tree), f"O={output}")
    _prepare(*make, "tinyconfig")
    _prepare(*make, "prepare")


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise limits.Skipped(f"{program} is not installed: apt-get install {package}")


def _prepare(*command: str) -> None:
    """What is not timed."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"{' '.join(command)}: status {done.returncode}; {done.stderr.strip()}")


def _script(name: str) -> str:
    return str(PROGRAMS / name)

# SPDX-License-Identifier: MIT
"""Imports point downwards: no circle of files, and a package knows only those below it.

What is imported for types alone counts too, and so does what a function imports when it is called.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

# The entry points, what they are made of, and what each may be made of in its turn. "" is mlockwipe/__init__.py.
MAY_IMPORT = {
    "__main__": "cli carriers contract lab",  # of any package: what `python -m` runs
    "cli": "verbs supervisor",
    "verbs": "attach audit containers contract kernel lab requirements status supervisor verify_here",
    "lab": "carriers contract kernel linux locked verify_here",
    "pytest_plugin": "audit",
    "verify_here": "carriers contract",
    "attach": "linux requirements supervisor tracing",
    "audit": "linux memory supervisor tracing",
    "containers": "linux memory",
    "status": "kernel linux requirements",
    "supervisor": "linux memory requirements tracing",
    "requirements": "linux",
    "tracing": "linux memory",
    "memory": "linux",
    "contract": "linux",
    "locked": "linux",
    "": "locked",
    "carriers": "",
    "kernel": "",
    "linux": "",
    "errors": "",
    "interruption": "",
    "messages": "",
    "printable": "",
    "report_file": "",
    "suppress": "",
}
# What all others may import, but for linux/: it raises OSError, and no exception of the product's.
COMMON = {"", "errors", "interruption", "messages", "printable", "report_file", "suppress"}


def modules(src: Path) -> dict[str, Path]:
    """The files by the names that they are imported by."""
    found = {}
    for path in src.glob("mlockwipe/**/*.py"):
        parts = path.relative_to(src).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, files: dict[str, Path]) -> Iterator[str]:
    """The modules that a file names in its imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inside & files.keys()
            if inside - files.keys():
                yield str(node.module)


def graph(src: Path) -> dict[str, set[str]]:
    """The files that each file imports. To import a.b.c runs a and a.b too, which have run already inside of them."""
    files = modules(src)
    edges = {}
    for name, path in files.items():
        named = set(imported(path, files))
        parts = [one.split(".") for one in named]
        run = {".".join(part[:end]) for part in parts for end in range(1, len(part))}
        edges[name] = {one for one in named | {one for one in run if not name.startswith(f"{one}.")} if one in files}
        edges[name].discard(name)
    return edges


def package(module: str) -> str:
    """A package or file right below mlockwipe."""
    top, *below = module.split(".")
    if top == "mlockwipe_lab":
        return "lab"
    if below[-1:] == ["__main__"]:
        return "__main__"
    return below[0] if below else ""


def test_no_file_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(graph(SRC)).prepare()


def test_a_package_imports_only_what_is_below_it() -> None:
    files = modules(SRC)
    seen = {
        (package(name), package(target))
        for name, path in files.items()
        for target in imported(path, files)
        if target.partition(".")[0] in ("mlockwipe", "mlockwipe_lab")
    }
    assert {source for source, _ in seen} <= MAY_IMPORT.keys()
    upwards = {
        (source, target)
        for source, target in seen
        if source != target
        and target not in MAY_IMPORT[source].split()
        and not (target in COMMON and source != "linux")
    }
    assert not upwards


def test_the_table_itself_points_downwards() -> None:
    TopologicalSorter({name: below.split() for name, below in MAY_IMPORT.items()}).prepare()


@pytest.mark.parametrize(
    "files",
    [
        {"a": "from mlockwipe.b import x", "b": "from mlockwipe import a"},
        {"a": "if TYPE_CHECKING:\n    import mlockwipe.b", "b": "def f():\n    from mlockwipe.a import x"},
        {"p/__init__": "from mlockwipe.a import x", "p/b": "", "a": "from mlockwipe.p import b"},
        {"p/__init__": "from mlockwipe.p.b import x", "p/b": "from mlockwipe.p import y"},
    ],
)
def test_a_circle_is_seen(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mlockwipe" / "p").mkdir(parents=True)
    for name, source in files.items():
        (tmp_path / "mlockwipe" / f"{name}.py").write_text(source)
    with pytest.raises(CycleError):
        TopologicalSorter(graph(tmp_path)).prepare()


def test_the_supervisor_does_without_what_takes_long_to_import() -> None:
    """It is imported while a program waits for its first lock. `typing` brings `re` with it: 4 ms."""
    seen = "import sys, mlockwipe.supervisor.supervisor; print({'typing', 're', 'dataclasses'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-I", "-c", seen], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

# SPDX-License-Identifier: MIT
"""The pictures in docs/ of what was measured."""

import subprocess
import sys
from pathlib import Path

from mlockwipe_lab.bench.host.document import as_json
from mlockwipe_lab.bench.host.sampling import Figure


def draw(name: str, figures: list[Figure], directory: Path) -> str:
    document = directory / "figures.json"
    document.write_text(as_json({}, figures, {}))
    subprocess.run([sys.executable, "-m", f"mlockwipe_lab.plots.{name}", str(document), str(directory)], check=True)
    (picture,) = directory.glob("*.svg")
    return picture.read_text()


def latencies(slowest: int = 1 << 20) -> list[Figure]:
    variants = "bare", "null tracer", "null tracer, pinned", "mlockwipe"
    calls = {variant: {2000.0: 980, 4000.0: 19, float(slowest): 1} for variant in variants}
    return [Figure(f"munmap-{lock}", "", "x", [1.0], distributions=calls) for lock in ("unlocked", "locked")]


def sizes(slowest: int = 10**9) -> list[Figure]:
    return [
        Figure(f"size-{size}-{lock}", "", "x", [2.0], {"bare": 1e6 * number, "mlockwipe": slowest})
        for number, size in enumerate(("4kib", "1gib", "huge-2mib"), start=1)
        for lock in ("locked", "unlocked")
    ]


def test_latencies_are_drawn_with_the_times_that_most_calls_took(tmp_path: Path) -> None:
    picture = draw("latency", latencies(), tmp_path)
    assert "<!-- mlockwipe: 2 / 4 / 4 us -->" in picture
    assert draw("latency", latencies(), tmp_path) == picture
    assert draw("latency", latencies(slowest=1 << 24), tmp_path) != picture


def test_sizes_are_drawn_by_pages(tmp_path: Path) -> None:
    picture = draw("sizes", sizes(), tmp_path)
    assert all(f"<!-- {text} -->" in picture for text in ("4 KiB", "2 MiB", "1 GiB", "huge pages"))
    assert draw("sizes", sizes(), tmp_path) == picture
    assert draw("sizes", sizes(slowest=10**8), tmp_path) != picture

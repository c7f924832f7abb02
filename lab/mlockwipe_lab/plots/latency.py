# SPDX-License-Identifier: MIT
"""Draw docs/latency.svg from what `python -m mlockwipe_lab.bench.host --only 'munmap-*locked' --json FILE` timed:
`python -m mlockwipe_lab.plots.latency FILE docs`."""

import json
import sys
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.rcParams["svg.hashsalt"] = "mlockwipe"  # the same file from the same figures
PANELS = {"munmap-unlocked": "munmap of an unlocked page", "munmap-locked": "munmap of a locked page"}
LINES = {
    "bare": ("bare", "#57606a", "-"),
    "null tracer, pinned": ("null tracer, one CPU", "#0550ae", ":"),
    "null tracer": ("null tracer, two CPUs", "#0550ae", "-"),
    "null tracer, twice": ("null tracer, two CPUs, two stops", "#0550ae", "--"),
    "mlockwipe": ("mlockwipe", "#b3151f", "-"),
}
MARKS = 50, 99, 99.9  # per cent


def main(path: Path, place: Path) -> None:
    figures = {figure["name"]: figure for figure in json.loads(path.read_text())["figures"]}
    picture, axes = plt.subplots(1, len(PANELS), figsize=(5.2 * len(PANELS), 5.0), sharex=True, sharey=True)
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        taken = figures[name]["calls_up_to_nanoseconds"]
        for variant, (label, colour, style) in LINES.items():
            if variant not in taken:
                continue
            calls = taken[variant]
            bounds = [int(bound) / 1000 for bound in calls]
            total = sum(calls.values())
            shares = [100 * so_far / total for so_far in accumulate(calls.values())]
            marks = " / ".join(f"{_rounded(bounds[bisect_left(shares, share)]):g}" for share in MARKS)
            axis.step(
                bounds[:1] + bounds, [0.0, *shares], style, where="post", color=colour, label=f"{label}: {marks} us"
            )
        axis.set_title(title)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("microseconds")
        axis.grid(color="#d0d7de", linewidth=0.6)
        axis.legend(
            title=" / ".join(f"{share} %" for share in MARKS),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.18),
            fontsize="small",
            frameon=False,
        )
    axes[0].set_ylabel("per cent of the calls took at most")
    picture.tight_layout()
    picture.savefig(place / "latency.svg", metadata={"Date": None})


def _rounded(value: float) -> float:
    """To three digits."""
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

# SPDX-License-Identifier: MIT
"""Draw docs/size.svg from what `python -m mlockwipe_lab.bench.host --only 'size-*' --json FILE` timed:
`python -m mlockwipe_lab.plots.sizes FILE docs`."""

import json
import re
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.rcParams["svg.hashsalt"] = "mlockwipe"  # the same file from the same figures
NAME = re.compile(r"size-(huge-)?((\d+)(kib|mib|gib))-(locked|unlocked)")
KIBIBYTES = {"kib": 1, "mib": 1 << 10, "gib": 1 << 20}
PANELS = {False: "pages of 4 KiB", True: "huge pages"}
LINES = {
    ("bare", "locked"): ("bare, locked", "#57606a", "-"),
    ("mlockwipe", "locked"): ("mlockwipe, locked", "#b3151f", "-"),
    ("bare", "unlocked"): ("bare, unlocked", "#57606a", ":"),
    ("mlockwipe", "unlocked"): ("mlockwipe, unlocked", "#b3151f", ":"),
}


def main(path: Path, place: Path) -> None:
    found = [
        (match, figure["nanoseconds"])
        for figure in json.loads(path.read_text())["figures"]
        if (match := NAME.fullmatch(figure["name"]))
    ]
    picture, axes = plt.subplots(1, len(PANELS), figsize=(5.2 * len(PANELS), 3.8), sharex=True, sharey=True)
    for axis, (huge, title) in zip(axes, PANELS.items(), strict=True):
        for (variant, lock), (label, colour, style) in LINES.items():
            times = {
                int(match[3]) * KIBIBYTES[match[4]]: nanoseconds[variant] / 1e6
                for match, nanoseconds in found
                if (bool(match[1]), match[5]) == (huge, lock)
            }
            axis.plot(list(times), list(times.values()), style, marker="o", markersize=4, color=colour, label=label)
        axis.set_title(title)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(color="#d0d7de", linewidth=0.6)
        axis.set_xlabel("memory of the process")
    sizes = {int(match[3]) * KIBIBYTES[match[4]]: f"{match[3]} {match[4][0].upper()}iB" for match, _ in found}
    axes[0].set_xticks(list(sizes), list(sizes.values()), rotation=45)
    axes[1].tick_params(axis="x", rotation=45)
    axes[0].set_ylabel("from SIGKILL to its end, milliseconds")
    axes[0].legend(frameon=False)
    picture.tight_layout()
    picture.savefig(place / "size.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

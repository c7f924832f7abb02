# SPDX-License-Identifier: MIT
"""Draw docs/share.svg from what `mlockwipe lab bench --json FILE` counted: `python docs/plot_costs.py FILE`."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from mlockwipe.lab.bench.work import SHARES

mpl.rcParams["svg.hashsalt"] = "mlockwipe"  # the same file from the same figures
WORKS = {0: "unmap-unlocked", **{share: f"unmap-share-{share}" for share in SHARES}, 100: "unmap-locked"}
LINES = {"init_on_free": ("init_on_free=1", "#b3151f"), "on": ("init_mlocked_on_free=1", "#116329")}


def main(path: Path) -> None:
    runs = [run for run in json.loads(path.read_text())["runs"] if run["carrier"] == "boot-option"]
    series = sorted({run["series"] for run in runs}, key=lambda name: [int(part) for part in name.split(".")])
    figure, axes = plt.subplots(1, len(series), figsize=(5.2 * len(series), 3.6), sharey=True, squeeze=False)
    for axis, one in zip(axes[0], series, strict=True):
        medians = {
            run["configuration"]: {work["name"]: work["median"] for work in run["work"]}
            for run in runs
            if run["series"] == one
        }
        for configuration, (label, colour) in LINES.items():
            ratios = [medians[configuration][work] / medians["unpatched"][work] for work in WORKS.values()]
            axis.plot(list(WORKS), ratios, marker="o", color=colour, label=label)
        axis.axhline(1, color="#888", linewidth=0.8)
        axis.set_title(f"Linux {one}")
        axis.set_xlabel("share of the memory that is locked, per cent")
        axis.legend(frameon=False)
    axes[0][0].set_ylabel("munmap of 64 MiB, against neither")
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("share.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

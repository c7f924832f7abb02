# SPDX-License-Identifier: MIT
"""Draw docs/share.svg and docs/unmap-size.svg from what `mlockwipe lab bench --json FILE` counted: `python -m
mlockwipe_lab.plots.costs FILE ... docs`."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mlockwipe_lab.bench.guest.work import SHARES, SIZES
from mlockwipe_lab.bench.sizes import size_name

mpl.rcParams["svg.hashsalt"] = "mlockwipe"  # the same file from the same figures
ON_FREE, ON = ("init_on_free", "init_on_free=1", "#b3151f"), ("on", "init_mlocked_on_free=1", "#116329")
BY_SHARE = {0: "unmap-unlocked", **{share: f"unmap-share-{share}" for share in SHARES}, 100: "unmap-locked"}

Medians = Mapping[str, Mapping[str, float]]  # instructions, by configuration and work


def main(paths: Sequence[Path], place: Path) -> None:
    told = [run for path in paths for run in json.loads(path.read_text())["runs"]]
    runs = [run for run in told if run["carrier"] == "boot-option"]
    counted = {
        series: {
            run["configuration"]: {work["name"]: work["median"] for work in run["work"]}
            for run in runs
            if run["series"] == series
        }
        for series in sorted(
            {run["series"] for run in runs}, key=lambda name: [int(part) for part in name.split(".")]
        )
    }
    for axis, medians in _axes(counted, place / "share.svg", "munmap of 64 MiB, against neither"):
        for configuration, label, colour in (ON_FREE, ON):
            ratios = _ratios(medians, configuration, list(BY_SHARE.values()))
            axis.plot(list(BY_SHARE), ratios, marker="o", color=colour, label=label)
        axis.set_xlabel("share of the memory that is locked, per cent")
    for axis, medians in _axes(counted, place / "unmap-size.svg", "one munmap, against neither"):
        for configuration, label, colour in (ON_FREE, ON):
            for how, style, history in (("locked", "-", "locked"), ("unlocked", ":", "never locked")):
                ratios = _ratios(medians, configuration, [f"unmap-{kib}k-{how}" for kib in SIZES])
                axis.plot(list(SIZES), ratios, style, marker="o", color=colour, label=f"{label}, {history}")
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(SIZES), [size_name(kib) for kib in SIZES], rotation=30)
        axis.set_xlabel("size of the memory")


def _ratios(medians: Medians, configuration: str, works: Sequence[str]) -> list[float]:
    return [medians[configuration][work] / medians["unpatched"][work] for work in works]


def _axes(counted: Mapping[str, Medians], path: Path, what: str) -> Iterator[tuple[Axes, Medians]]:
    """Axes for each series of Linux, and what was counted there; written to a file when all are drawn."""
    figure, axes = plt.subplots(1, len(counted), figsize=(5.2 * len(counted), 4.6), sharey=True, squeeze=False)
    for axis, (series, medians) in zip(axes[0], counted.items(), strict=True):
        yield axis, medians
        axis.axhline(1, color="#888", linewidth=0.8)
        axis.set_title(f"Linux {series}")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), frameon=False, fontsize="small")
    axes[0][0].set_ylabel(what)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))

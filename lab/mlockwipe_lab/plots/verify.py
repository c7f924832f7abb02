# SPDX-License-Identifier: MIT
"""Draw docs/verify.svg, what `mlockwipe verify` says here: `python -m mlockwipe_lab.plots.verify docs/verify.svg`."""

import io
import sys
from pathlib import Path

from rich.console import Console

from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.verdict_table import print_table
from mlockwipe.verify_here import verify_here


def main(picture: Path) -> None:
    console = Console(record=True, width=124, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print("[bold]$ mlockwipe verify[/]")
    print_table(verify_here(["none", "supervisor"], all_cases()), console)
    console.save_svg(str(picture), title="mlockwipe verify")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

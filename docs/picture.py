# SPDX-License-Identifier: MIT
"""Draw the pictures of the README: `.venv/bin/python docs/picture.py` makes docs/verify.svg by `mlockwipe verify`,
and `.venv/bin/python docs/picture.py lab.json` makes docs/lab.svg of what `make lab` found."""

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.verdict_table import print_table
from mlockwipe.lab.picture import draw
from mlockwipe.verify import verify_here

here = Path(__file__).parent
if len(sys.argv) > 1:
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), here / "lab.svg")
else:
    console = Console(record=True, width=124, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print("[bold]$ mlockwipe verify[/]")
    print_table(verify_here(["none", "supervisor"], all_cases()), console)
    console.save_svg(str(here / "verify.svg"), title="mlockwipe verify")

# SPDX-License-Identifier: MIT
"""Draw docs/verify.svg, the picture of `mlockwipe verify` in the README: `.venv/bin/python docs/picture.py`."""

import io
from pathlib import Path

from rich.console import Console

from mlockwipe.contract import all_cases, print_table
from mlockwipe.verify import verify_here

console = Console(record=True, width=124, file=io.StringIO(), force_terminal=True, color_system="truecolor")
console.print("[bold]$ mlockwipe verify[/]")
print_table(verify_here(["none", "supervisor"], all_cases()), console)
console.save_svg(str(Path(__file__).with_name("verify.svg")), title="mlockwipe verify")
